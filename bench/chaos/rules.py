"""What a call may have been charged, by how it ended: the README's table, held against what was served.

`judge` looks at one attempt in all three books. Its answer names the rule that explains the charge; without
one there are words that say what is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaos.calls import Attempt, total

# The words on holds and entries. They are the contract, so they stand here once more.
FINISHED = "Finished; charged what OpenAI reported."
NO_USAGE = "Finished, but OpenAI reported no usage; charged the whole hold."
DIED = "The process that served this call ended without a word; charged what had been counted."
GOES_ON = "The work goes on after its call; charged at its end."
ENDED = "Ended; charged what OpenAI reported."

# What a correction adds to its reason.
_LATE = re.compile(r"; -?\d+ had been charged before this was known$")

# What a killed worker may lose, and how long after its kill its calls' connections are seen to end.
LOST_AT_MOST_S = 1.0
# A note of progress waits for its turn and its commit, as any call does; a busy machine has long ones.
NOTE_WITHIN_S = 0.5
LOOKED_BACK_S = 5.0
SEEN_WITHIN_S = 3.0
# Pieces may be on their way for so long when their process is killed.
ALIVE_S = 0.3
# A gateway that answers nothing has not seen them end either; nobody lets it stand for longer than this.
STOOD_STILL_S = 60.0
# How long after a full disk has room again a debt may still wait in memory, on a busy machine.
DEBT_PAID_WITHIN_S = 6.0
# Pieces of a tool's arguments are counted together, and may come to a few tokens more or less than alone.
MERGED_TOKENS = 4


@dataclass(frozen=True)
class Case:
    """One attempt in all books."""

    attempt: Attempt
    #: The simulator's lines for it: none, or one.
    lines: Sequence[Mapping[str, Any]]
    hold: Mapping[str, Any] | None
    entries: Sequence[Mapping[str, Any]]
    #: The simulator's lines for the work that the hold awaits.
    work: Sequence[Mapping[str, Any]]
    #: When processes of its instance were killed or halted, halted alone, and told to end.
    kills: Sequence[float]
    halts: Sequence[float]
    stops: Sequence[float]
    #: From when to when the database was away, and the disk of the gateways was full, too.
    away: Sequence[tuple[float, float]]
    full: Sequence[tuple[float, float]]
    #: Those of its instance: they tell how long a commit took when.
    probes: Sequence[Attempt]

    @property
    def line(self) -> Mapping[str, Any] | None:
        return self.lines[0] if self.lines else None

    @property
    def charged(self) -> int:
        return -sum(int(entry["amount"]) for entry in self.entries)

    @property
    def reason(self) -> str:
        """How it ended, as the newest entry or the hold says."""
        told = self.entries[-1]["reason"] if self.entries else self.hold["reason"] if self.hold else ""
        return _LATE.sub("", str(told))

    @property
    def served(self) -> int:
        """Tokens that the simulator generated for it, as far as it got; of work, all."""
        if self.hold and self.hold["awaits"]:
            return sum(total(line["usage"]) for line in self.work)
        line = self.line
        if line is None or not line["usage"] or line["status"] != 200:
            return 0
        if line["state"] == "finished" or line["usage_reported"]:
            return total(line["usage"])
        # Broken off before the first event had come, OpenAI gave nothing; a client that left had asked.
        if line["state"] == "broken" and not line["tokens_sent"]:
            return 0
        return _prompt(line) + int(line["tokens_sent"])

    def end(self) -> float:
        """When the last of it was over, at the client or at the simulator."""
        line = self.line
        return max(self.attempt.ended, line["at"] + (line["seconds"] or 0.0) if line else 0.0)

    def hit(self, times: Sequence[float]) -> float | None:
        """The first of the times at which the call was under way, or the gateway stood still after it."""
        return next(iter(self.hits(times)), None)

    def hits(self, times: Sequence[float]) -> list[float]:
        """All of them."""
        end = self.end()
        answered = [p.ended for p in self.probes if p.began >= end and p.status not in (0, 503)]
        until = max(end + SEEN_WITHIN_S, min(answered, default=end + STOOD_STILL_S))
        return [t for t in times if self.attempt.began - 0.1 <= t <= until]


@dataclass(frozen=True)
class Verdict:
    rule: str
    wrong: str = ""
    #: Seconds of output that a killed worker lost.
    lost_s: float = 0.0


def judge(case: Case) -> Verdict:
    """The rule that explains the attempt's charge, or what is wrong with it."""
    attempt, hold = case.attempt, case.hold
    if len(case.lines) > 1:
        return Verdict("", f"forwarded {len(case.lines)} times")
    is_own = case.line is None or case.line["status"] != attempt.status
    if (attempt.status in (401, 404, 500) and is_own) or attempt.error_code == "(no error object)":
        return Verdict("", f"answered {attempt.status} {attempt.error_code}")
    if attempt.status >= 502 and not attempt.has_retry_after:
        return Verdict("", f"{attempt.status} without Retry-After")
    if attempt.replayed:
        return Verdict("replayed", "held or forwarded again" if hold or case.line else "")
    if hold is None:
        if case.line is not None or attempt.status == 200:
            return Verdict("", "served without a hold")
        return Verdict("refused before a hold" if attempt.status else "never came to a hold")
    if hold["state"] == "open":
        return Verdict("", "still on hold")
    if (hold["state"] == "posted") != bool(case.entries):
        return Verdict("", f"its hold is {hold['state']}, with {len(case.entries)} entries")
    verdict = _by_reason(case)
    return verdict if verdict.wrong else _client_agrees(case, verdict)


def _client_agrees(case: Case, verdict: Verdict) -> Verdict:
    """What the client holds in hands must be paid for exactly, whatever the reason says."""
    attempt = case.attempt
    if not attempt.is_complete or (case.hold and case.hold["awaits"]):
        return verdict
    if verdict.rule == "finished, no usage reported":
        return verdict
    if case.reason == DIED and _owed_in_memory_only(case):
        return Verdict("the gateway died, its disk full")
    if case.charged != case.served:
        return Verdict("", f"the client has the whole answer of {case.served}, charged {case.charged}")
    if attempt.usage is not None and total(attempt.usage) != case.charged:
        return Verdict("", f"the client was told {total(attempt.usage)}, charged {case.charged}")
    if attempt.told_charge is not None and attempt.told_charge != case.charged:
        return Verdict("", f"x-balance-charged {attempt.told_charge}, charged {case.charged}")
    return verdict


def _owed_in_memory_only(case: Case) -> bool:
    """Whether the call ended while neither database nor disk took its charge, and its process died soon."""
    return any(
        began <= case.attempt.ended <= ended + 1.0
        and any(case.attempt.ended <= killed <= ended + DEBT_PAID_WITHIN_S for killed in case.kills)
        for began, ended in case.full
    )


def _by_reason(case: Case) -> Verdict:
    match case.reason:
        case "Finished; charged what OpenAI reported." | "Ended; charged what OpenAI reported.":
            if case.reason == ENDED:
                return _exact(case, "work ended later")
            return _reported(case, "finished, usage reported")
        case "Cut off after OpenAI had reported its usage; charged that.":
            return _reported(case, "cut off after the usage")
        case "Finished, but OpenAI reported no usage; charged the whole hold.":
            fits = "no_usage" in case.attempt.does and case.hold and case.charged == case.hold["amount"]
            return Verdict(
                "finished, no usage reported", "" if fits else f"charged {case.charged}: usage was told"
            )
        case "OpenAI refused the call.":
            return _free(case, "refused by OpenAI", served_as=("refused",))
        case "OpenAI could not be reached or gave no usable answer.":
            line = case.line
            if line and line["tokens_sent"] and case.attempt.is_stream and "reset" not in line["directives"]:
                # What was sent before a reset may never have come.
                return Verdict("OpenAI failed", "free, though events had come")
            return _free(case, "OpenAI failed", served_as=("broken", "refused"))
        case "The call ended before it was sent to OpenAI." | "The client left before the call.":
            return _free(case, "left before it was sent", served_as=())
        case "The database went away before the hold was known to stand.":
            return _free(case, "the database went away", served_as=())
        case "The database answered too late; nothing was sent to OpenAI.":
            # A worker that stands still may have a SQLite file locked.
            return _free(case, "the database was late", served_as=())
        case "The client left; charged what had been counted.":
            return _left(case)
        case "OpenAI broke off; charged what had been counted.":
            return _broken(case)
        case "The gateway could not go on; charged what had been counted.":
            away = any(b <= case.end() and case.attempt.began <= e + 1 for b, e in case.away)
            return (
                _counted(case, "a stream met the database away") if away else Verdict("", "it was not away")
            )
        case "The gateway was stopped; charged what had been counted.":
            hit = case.hit(case.stops) or case.hit(case.kills)
            return _counted(case, "the gateway was stopped") if hit else Verdict("", "nobody had stopped it")
        case "The process that served this call ended without a word; charged what had been counted.":
            return _died(case)
        case "The process that served this call ended before anything was counted.":
            return (
                Verdict("the gateway died") if case.hit(case.kills) else Verdict("", "nobody had killed it")
            )
    return Verdict("", f"an unknown reason: {case.reason}")


def _exact(case: Case, rule: str) -> Verdict:
    if case.charged == case.served:
        return Verdict(rule)
    return Verdict(rule, f"charged {case.charged}, used {case.served}")


def _reported(case: Case, rule: str) -> Verdict:
    """Charged the usage that OpenAI told, which may have gone out just before the journal was cut off."""
    usage = case.line["usage"] if case.line is not None and case.line["status"] == 200 else None
    told = total(usage) if usage and not (case.hold and case.hold["awaits"]) else case.served
    return Verdict(rule, "" if case.charged == told else f"charged {case.charged}, told {told}")


def _free(case: Case, rule: str, *, served_as: Sequence[str]) -> Verdict:
    if case.charged:
        return Verdict(rule, f"charged {case.charged} by {case.reason!r}")
    if case.line is not None and case.line["state"] not in served_as:
        return Verdict(rule, f"free, though the simulator {case.line['state']} {case.served} tokens")
    if case.attempt.is_complete:
        return Verdict(rule, "free, though the client has the whole answer")
    return Verdict(rule)


def _left(case: Case) -> Verdict:
    attempt = case.attempt
    if attempt.left is None and not case.hit(case.kills):
        return Verdict("the client left", "nobody had left")
    if not attempt.is_stream:
        return Verdict("the client left", "a call in one piece runs to its end")
    return _counted(case, "the client left a stream")


def _broken(case: Case) -> Verdict:
    line = case.line
    broke = line is not None and (line["state"] == "broken" or "error_after" in line["directives"])
    if not broke:
        return Verdict("OpenAI broke off", f"nothing had broken: {line and line['state']}")
    return _counted(case, "OpenAI broke off a stream")


def _died(case: Case) -> Verdict:
    killed = case.hit(case.kills)
    if killed is None or case.charged == case.served:
        # What was charged is what was served all the same.
        return _exact(case, "the gateway died")
    if not case.attempt.is_stream or not case.attempt.pieces:
        return _counted(case, "the gateway died")
    # Its process lived for as long as pieces came.
    lived_until = case.attempt.pieces[-1] - ALIVE_S
    hits = case.hits(case.kills)
    verdict = _lost(case, next((t for t in hits if t >= lived_until), hits[-1]))
    halted = case.hit(case.halts)
    # One that stood still may have been taken for dead then; its later notes come to nothing.
    return _lost(case, halted) if verdict.wrong and halted is not None else verdict


def _lost(case: Case, killed: float) -> Verdict:
    """A stream whose process has ended at this time."""
    output = case.entries[-1]["units"].get("output", 0)
    unpaid = [t for t in case.attempt.pieces[output:] if t <= killed]
    lost_s = killed - unpaid[0] if unpaid else 0.0
    slow_s = max(NOTE_WITHIN_S, _slowest_probe_s(case, killed))
    noted = killed - LOST_AT_MOST_S - slow_s
    for began, ended in case.away:
        if began <= noted <= ended + slow_s:
            # Notes of that time were in its folder at best, and may have been found after the sweep.
            noted, lost_s = began - LOST_AT_MOST_S - slow_s, 0.0
    return _counted(case, "the gateway died", before=noted, lost_s=lost_s)


def _slowest_probe_s(case: Case, before: float) -> float:
    """The longest that a small call took in the last seconds: so long may a note wait for its commit.

    Nor is a commit known to have come through since the last of them began that was answered.
    """
    since = before - LOOKED_BACK_S
    answered = [p for p in case.probes if p.status not in (0, 503) and since <= p.ended <= before]
    quiet = before - max((probe.began for probe in answered), default=since)
    return max([quiet, *(probe.ended - probe.began for probe in answered)])


def _counted(case: Case, rule: str, *, before: float | None = None, lost_s: float = 0.0) -> Verdict:
    """Charged as counted: the input, and output at most as sent and at least as the client had got."""
    assert case.hold is not None
    charged, units = case.charged, case.entries[-1]["units"] if case.entries else {}
    counted = case.hold["counted"]
    output, merged = units.get("output", 0), MERGED_TOKENS if "tools" in case.attempt.kind else 0
    sent = int(case.line["tokens_sent"]) if case.line is not None else 0
    had = [t for t in case.attempt.pieces if before is None or t <= before]
    if charged != sum(units.values()):
        return Verdict(rule, f"charged {charged} for {dict(units)}")
    if units.get("input", 0) != counted.get("input", 0):
        return Verdict(rule, f"input {units.get('input')}, counted {counted.get('input')}")
    if output > sent + merged:
        return Verdict(rule, f"output {output}, sent {sent}")
    if output < len(had) - merged and case.attempt.is_stream:
        return Verdict(rule, f"output {output}, though the client had got {len(had)}")
    return Verdict(rule, lost_s=lost_s)


def _prompt(line: Mapping[str, Any]) -> int:
    usage = line["usage"] or {}
    return int(usage.get("prompt_tokens", usage.get("input_tokens", 0)))
