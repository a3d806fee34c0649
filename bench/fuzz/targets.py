"""What can be fuzzed: each name with the tests that say what must hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One fuzzer. `tests` are `module:function`; each gets an equal part of the time.

    `by` says what drives it: atheris looks for inputs that reach new lines of the code, Hypothesis makes up
    what is done to a database, and a gateway is called from outside.
    """

    about: str
    tests: tuple[str, ...]
    by: str = "atheris"
    #: Whether it is run on PostgreSQL, if there is one.
    on_postgresql: bool = False


def _in(module: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{module}:test_{name}" for name in names)


TARGETS = {
    "streams": Target(
        "a stream's bytes, cut anywhere",
        _in(
            "openai_app.tests.test_fuzz_streams",
            "events_come_out_whole_however_the_bytes_are_cut",
            "a_stream_tells_the_same_however_its_bytes_are_cut",
        ),
    ),
    "forms": Target(
        "multipart forms, cut anywhere, and read as Django reads them",
        _in(
            "openai_app.tests.test_fuzz_requests",
            "a_form_reads_the_same_however_its_bytes_are_cut",
            "a_form_is_read_as_django_reads_it",
            "any_content_type_is_read_or_refused",
        ),
    ),
    "bodies": Target(
        "JSON bodies, packed bodies, and the headers that tell of them and of the caller",
        _in(
            "openai_app.tests.test_fuzz_requests",
            "a_json_body_is_read_as_it_stands_or_refused",
            "a_packed_body_is_unpacked_within_its_bound_or_refused",
            "any_authorization_header_gives_a_digest_or_is_refused",
            "any_announced_length_is_a_number_or_none",
        ),
    ),
    "ids": Target(
        "ids in paths, queries and bodies, however they are spelt",
        _in(
            "openai_app.tests.test_fuzz_requests",
            "the_ids_of_any_call_can_be_listed",
            "an_id_is_found_however_its_characters_are_escaped",
        ),
    ),
    "counting": Target(
        "what requests of every family are counted as",
        _in(
            "openai_app.tests.test_fuzz_metering",
            "any_request_is_estimated",
            "any_lines_of_a_file_are_counted",
        ),
    ),
    "usage": Target(
        "what answers of every family say was used",
        _in(
            "openai_app.tests.test_fuzz_metering",
            "the_usage_of_any_answer_can_be_read",
            "the_usage_of_any_finished_object_can_be_read",
        ),
    ),
    "media": Target(
        "the lengths of sounds and the sizes of images",
        _in(
            "openai_app.tests.test_fuzz_metering",
            "any_sound_has_a_length",
            "no_image_costs_more_than_one_of_unknown_size",
        ),
    ),
    "answers": Target(
        "an upstream's bytes, cut anywhere",
        _in("openai_app.tests.http.test_fuzz_answers", "an_answer_is_the_same_however_its_bytes_are_cut"),
    ),
    "spool": Target(
        "spools that were spoilt",
        _in(
            "balances.tests.test_fuzz_spool",
            "what_a_spool_keeps_is_read_as_it_was",
            "a_spoilt_spool_gives_nothing_that_was_not_kept",
            "a_bit_that_is_turned_costs_its_line_alone",
            "a_spool_that_breaks_off_gives_all_that_is_whole",
        ),
    ),
    "ledger": Target(
        "any interleaving of what can be asked of the ledger, with crashes and sweeps",
        ("balances.tests.test_fuzz_ledger:LedgerMachine",),
        by="hypothesis",
        on_postgresql=True,
    ),
    "api": Target(
        "all that /api/schema describes, by schemathesis, as a user, as a superuser, as nobody",
        ("gateway.tests.test_fuzz_served:fuzz_api",),
        by="gateway",
        on_postgresql=True,
    ),
    "headers": Target(
        "the Host, Authorization and other headers, over bare connections",
        ("gateway.tests.test_fuzz_served:fuzz_headers",),
        by="gateway",
        on_postgresql=True,
    ),
}
