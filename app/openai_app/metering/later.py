"""Work that goes on after its call was answered, and is paid for when it has ended.

What was cancelled or has failed is paid for as far as OpenAI reports it. Statuses are those of OpenAI's API
reference; an unknown one counts as going on, so that nothing is settled too early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from balances.usage import Usage

from . import batches, evals, fine_tuning, responses, runs, videos
from .meter import Answer, Request
from .reading import mapping, model_name, string


def _model(answer: Answer) -> str:
    return model_name(answer.get("model"))


def _never(_: Answer) -> bool:
    return False


@dataclass(frozen=True)
class Later:
    """How one kind of object tells its end and its cost; no function raises."""

    #: Where it is read, below the prefix; `{id}` is its own id, other slots are named by fields of it.
    path: str
    #: The statuses after which nothing more happens to it.
    final: frozenset[str]
    #: What it has used, once ended; None where OpenAI does not say.
    usage: Callable[[Answer], Usage | None]
    #: The name that its rates are looked up by, read from the object: the request need not have told it.
    rated_as: Callable[[Answer], str] = _model
    #: Instead of `usage`, when that is None: the field with the id of a file, and the reader of its lines,
    #: for an answer and what it was rated as when its work began.
    file_field: str = ""
    lines: Callable[[Answer, str], batches.Output] | None = None
    #: Whether the lines tell more than `usage` does, even where there is one.
    prefers_lines: Callable[[Answer], bool] = _never

    def has_ended(self, answer: Answer) -> bool:
        return string(answer.get("status")) in self.final


def _response_usage(response: Answer) -> Usage | None:
    return responses.usage(response, {})


#: By the `object` field that OpenAI gives each kind.
LATER: Mapping[str, Later] = {
    "batch": Later(
        path="/batches/{id}",
        final=frozenset(("completed", "failed", "expired", "cancelled")),
        usage=batches.usage_at_end,
        file_field="output_file_id",
        lines=batches.Output,
        prefers_lines=batches.is_told_by_lines,
    ),
    "response": Later(
        path="/responses/{id}",
        final=frozenset(("completed", "failed", "incomplete", "cancelled")),
        usage=_response_usage,
    ),
    "thread.run": Later(
        path="/threads/{thread_id}/runs/{id}",
        final=frozenset(("completed", "failed", "incomplete", "cancelled", "expired")),
        usage=runs.usage_at_end,
    ),
    "fine_tuning.job": Later(
        path="/fine_tuning/jobs/{id}",
        final=frozenset(("succeeded", "failed", "cancelled")),
        usage=fine_tuning.usage_at_end,
    ),
    "fine-tune": Later(
        path="/fine-tunes/{id}",
        final=frozenset(("succeeded", "failed", "cancelled")),
        usage=fine_tuning.usage_at_end,
    ),
    "video": Later(
        path="/videos/{id}",
        final=frozenset(("completed", "failed")),
        usage=videos.usage_at_end,
        rated_as=videos.rated_as,
    ),
    "eval.run": Later(
        path="/evals/{eval_id}/runs/{id}",
        final=frozenset(("completed", "failed", "canceled", "cancelled")),
        usage=evals.usage_at_end,
    ),
}


def pending(answer: Answer) -> Later | None:
    """The rules for an object that still goes on, given itself or within a stream's event; else None."""
    found = _find(answer)
    return None if found is None or found[0].has_ended(found[1]) else found[0]


def has_ended(answer: Answer) -> bool:
    """Whether an answer or an event is an object that has come to its end."""
    found = _find(answer)
    return found is not None and found[0].has_ended(found[1])


def usage(answer: Answer, _: Request) -> Usage | None:
    """The usage of an object that has ended; None as long as it goes on, whatever it reports by then."""
    found = _find(answer)
    return found[0].usage(found[1]) if found is not None and found[0].has_ended(found[1]) else None


def _find(answer: Answer) -> tuple[Later, Answer] | None:
    inner = mapping(answer.get("response")) or answer
    later = LATER.get(string(inner.get("object")))
    return None if later is None else (later, inner)
