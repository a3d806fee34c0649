"""The three books of a run, brought together call by call."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from chaos.calls import Attempt, total
from chaos.clients import Book, Site
from chaos.rules import ENDED, FINISHED, GOES_ON, NO_USAGE, Case, Verdict, judge

POLLER = "tollgate-poller"
# Ids of calls that cost nothing end so.
FREE = ".free"


@dataclass
class Findings:
    """What the comparison came to."""

    cases: list[tuple[Case, Verdict]] = field(default_factory=list)
    #: Everything that no rule explains.
    wrong: list[str] = field(default_factory=list)
    lowest: dict[str, int] = field(default_factory=dict)
    open_holds: int = 0


def compare(
    sites: Sequence[Site],
    book: Book,
    ledgers: Mapping[str, Mapping[str, Any]],
    journal: Iterable[Mapping[str, Any]],
    away: Mapping[str, Sequence[tuple[float, float]]],
    full: Mapping[str, Sequence[tuple[float, float]]],
) -> Findings:
    """`ledgers` are those of the sites, as ledger.py copies them.

    `away` and `full` say from when to when each site's database was away, its disk full.
    """
    findings = Findings()
    lines, work = _by_attempt(journal, {a.id for a in book.attempts}, findings)
    for site in sites:
        ledger = ledgers[site.name]
        attempts = [a for a in book.attempts if a.site == site.name]
        times = away.get(site.name, ()), full.get(site.name, ())
        _compare_site(site, attempts, ledger, lines, work, times, findings)
        _check_balances(site, book, ledger, findings)
        _check_grants(site, book, ledger, findings)
    return findings


def _by_attempt(
    journal: Iterable[Mapping[str, Any]], known: set[str], findings: Findings
) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, list[Mapping[str, Any]]]]:
    """The journal's lines by the attempt that they are of, and those of work by the object."""
    lines, work = defaultdict(list), defaultdict(list)
    for line in journal:
        if line["kind"] != "call":
            work[line["object_id"]].append(line)
            continue
        name = line["headers"].get("x-client-request-id", "")
        if line["method"] != "POST" or name.endswith(FREE):
            continue
        if name not in known:
            findings.wrong.append(f"the simulator served a call of nobody's: {line['path']} {name!r}")
        lines[name].append(line)
    return lines, work


def _compare_site(
    site: Site,
    attempts: Sequence[Attempt],
    ledger: Mapping[str, Any],
    lines: Mapping[str, Sequence[Mapping[str, Any]]],
    work: Mapping[str, Sequence[Mapping[str, Any]]],
    times: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]],
    findings: Findings,
) -> None:
    instances = {instance.name: instance for instance in site.instances}
    probes = {name: [a for a in attempts if a.kind == "probe" and a.instance == name] for name in instances}

    def case_of(attempt: Attempt, bill: Bill | None) -> Case:
        hold = bill.hold if bill else None
        instance = instances[attempt.instance]
        return Case(
            attempt=attempt,
            lines=lines.get(attempt.id, ()),
            hold=hold,
            entries=bill.charges if bill else (),
            work=work.get(hold["awaits"].rpartition("/")[2], ()) if hold and hold["awaits"] else (),
            kills=instance.kills,
            halts=instance.halts,
            stops=instance.stops,
            away=times[0],
            full=times[1],
            probes=probes[attempt.instance],
        )

    findings.open_holds += sum(hold["state"] == "open" for hold in ledger["holds"])
    bills, unowned = _bills(ledger)
    findings.wrong += [f"{site.name}: a charge of nobody's hold: {entry}" for entry in unowned]
    cases = []
    for key_id, some in _by_key(attempts).items():
        found, left = _match(some, bills.pop(key_id, []), case_of)
        cases += found
        findings.wrong += [f"{site.name}: a hold of nobody's call: {bill.hold}" for bill in left]
    findings.wrong += [
        f"{site.name}: a hold of nobody's key: {bill.hold}" for some in bills.values() for bill in some
    ]
    for case in cases:
        verdict = judge(case)
        findings.cases.append((case, verdict))
        if verdict.wrong:
            findings.wrong.append(describe(case, verdict))
    _check_keyed(cases, findings)


@dataclass(frozen=True)
class Bill:
    """What the ledger has of one call: its hold, by whose id the caller knows it, and all its charges."""

    id: str
    #: The hold that decides: of work that went on after its process was taken for dead, the second.
    hold: Mapping[str, Any]
    charges: Sequence[Mapping[str, Any]]


def _bills(ledger: Mapping[str, Any]) -> tuple[dict[int, list[Bill]], list[Mapping[str, Any]]]:
    """The bills by the id of their key, oldest first; and entries of charges that have no hold."""
    entries, holds = defaultdict(list), defaultdict(list)
    for entry in ledger["entries"]:
        if entry["hold_id"] is not None:
            entries[entry["hold_id"]].append(entry)
    for hold in ledger["holds"]:
        holds[hold["key_id"]].append(hold)
    bills: dict[int, list[Bill]] = defaultdict(list)
    for key_id, some in holds.items():
        waiting = [hold for hold in some if hold["awaits"]]
        for hold in some:
            decides, charges = hold, entries.pop(hold["id"], [])
            if hold["reason"] == GOES_ON:
                decides = next(each for each in waiting if each["created_at"] > hold["created_at"])
                waiting.remove(decides)
                charges += entries.pop(decides["id"], [])
            bills[key_id].append(Bill(hold["id"], decides, charges))
        second = {bill.hold["id"] for bill in bills[key_id] if bill.hold["id"] != bill.id}
        bills[key_id] = [bill for bill in bills[key_id] if bill.id not in second]
    return bills, [entry for some in entries.values() for entry in some]


def _by_key(attempts: Iterable[Attempt]) -> dict[int, list[Attempt]]:
    by_key: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_key[attempt.key_id].append(attempt)
    return by_key


def _match(
    attempts: Sequence[Attempt],
    bills: Sequence[Bill],
    case_of: Callable[[Attempt, Bill | None], Case],
) -> tuple[list[Case], list[Bill]]:
    """Each attempt of one key with its bill, and the bills that are left over.

    A key is one attempt's, but for those of an Idempotency-Key: of them the answer's head tells the bill.
    Attempts that never saw one may have any of the others: that which the rules explain best, and of several
    that which began at about the same time.
    """
    by_id = {bill.id: bill for bill in bills}
    told = {a.id: by_id.pop(a.request_id) for a in attempts if a.request_id in by_id and not a.replayed}
    unheard = [a for a in attempts if a.id not in told and not a.replayed]
    free = [*by_id.values(), *[None] * (len(unheard) - len(by_id))]

    def cost(order: Sequence[Bill | None]) -> tuple[int, float]:
        pairs = [(a, bill) for a, bill in zip(unheard, order, strict=True)]
        wrong = sum(bool(judge(case_of(a, bill)).wrong) for a, bill in pairs)
        return wrong, sum(abs(bill.hold["created_at"] - a.began) for a, bill in pairs if bill)

    best = min(permutations(free, len(unheard)), key=cost) if len(free) > 1 else tuple(free[: len(unheard)])
    owned = told | {a.id: bill for a, bill in zip(unheard, best, strict=True) if bill}
    left = [bill for bill in by_id.values() if bill not in best]
    return [case_of(attempt, owned.get(attempt.id)) for attempt in attempts], left


def _check_keyed(cases: Iterable[Case], findings: Findings) -> None:
    """Of the attempts with one Idempotency-Key one is paid for as finished, unless a process died between."""
    groups = defaultdict(list)
    for case in cases:
        if case.attempt.idempotency_key:
            groups[case.attempt.key_id].append(case)
    for group in groups.values():
        paid = [case for case in group if case.reason in (FINISHED, NO_USAGE, ENDED) or case.work]
        replays = [case for case in group if case.attempt.replayed]
        originals = {case.hold["id"] for case in paid if case.hold}
        if len(paid) > 1 and not all(case.hit(case.kills) for case in paid[:-1]):
            names = ", ".join(case.attempt.id for case in paid)
            findings.wrong.append(f"paid {len(paid)} times for one Idempotency-Key: {names}")
        findings.wrong += [
            f"{case.attempt.id} replays {case.attempt.replayed}, which nobody paid for"
            for case in replays
            if case.attempt.replayed not in originals
            and not any(other.hold and other.hold["id"] == case.attempt.replayed for other in group)
        ]


def describe(case: Case, verdict: Verdict) -> str:
    """A line about a call that is wrong, with what each book has of it."""
    a, line, hold = case.attempt, case.line, case.hold
    served = (
        f"{line['state']} {line['status']} usage {total(line['usage'])} sent {line['tokens_sent']} "
        f"at {line['at']:.2f}+{line['seconds'] or 0:.2f} {line['directives']}"
        if line
        else "not served"
    )
    held = f"hold {hold['id']} {hold['state']} of {hold['amount']} {hold['awaits']}" if hold else "no hold"
    charges = "; ".join(f"{e['kind']} {e['amount']} {e['units']} {e['reason']!r}" for e in case.entries)
    got = f"{'whole' if a.is_complete else 'not whole'}, {len(a.pieces)} pieces"
    client = f"status {a.status} {a.error_code} {got} left={a.left} {a.broke}"
    return (
        f"{a.id} at {a.instance}, {a.kind} [{a.does[:60]}] {a.began:.2f}–{a.ended:.2f}: {verdict.wrong}\n"
        f"    simulator: {served}\n"
        f"    ledger: {held}; {charges or (hold and hold['reason'])}\n"
        f"    client: {client}"
    )


def _check_balances(site: Site, book: Book, ledger: Mapping[str, Any], findings: Findings) -> None:
    """No strict account was ever below zero, by its entries and by what the operator was shown."""
    seen = [low for (name, _), low in book.lowest.items() if name == site.name]
    strict = {account["user_id"] for account in ledger["accounts"] if not account["relaxed"]}
    seen += [entry["balance_after"] for entry in ledger["entries"] if entry["account_id"] in strict]
    findings.lowest[site.name] = min(seen, default=0)
    for entry in ledger["entries"]:
        if entry["account_id"] in strict and entry["balance_after"] < 0:
            findings.wrong.append(f"{site.name}: a balance below zero: {entry}")


def _check_grants(site: Site, book: Book, ledger: Mapping[str, Any], findings: Findings) -> None:
    """A top-up that was confirmed is in the ledger once; any other at most once."""
    counts: dict[str, int] = defaultdict(int)
    for entry in ledger["entries"]:
        if entry["kind"] == "grant":
            counts[entry["reason"]] += 1
    for grant in book.grants:
        if grant.site != site.name:
            continue
        count = counts.pop(grant.reason, 0)
        if count > 1 or (grant.status == 200 and count != 1) or (400 <= grant.status < 500 and count):
            findings.wrong.append(
                f"{site.name}: a top-up answered {grant.status} is in the ledger {count} times"
            )
    findings.wrong += [f"{site.name}: a top-up of nobody's: {reason}" for reason in counts]
