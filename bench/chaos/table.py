"""What a run prints at its end."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from chaos.books import Findings
from chaos.calls import Attempt
from chaos.clients import Book, Site
from chaos.watch import Thrown, Watch, served_after

# A start takes seconds of processor time.
STARTS_WITHIN_S = 20.0
MOST_SHOWN = 40


def say(line: str = "") -> None:
    print(line, flush=True)


def print_calls(sites: Sequence[Site], book: Book, findings: Findings) -> None:
    """By site: attempts, how many were served and charged, and tokens over and under what was served."""
    say(
        f"{'':12}{'attempts':>10}{'served':>8}{'charged':>9}{'tokens':>10}{'over':>8}{'under':>8}{'lowest':>9}"
    )
    for site in sites:
        cases = [(case, verdict) for case, verdict in findings.cases if case.attempt.site == site.name]
        over = sum(max(0, case.charged - case.served) for case, _ in cases)
        under = sum(max(0, case.served - case.charged) for case, _ in cases)
        say(
            f"{site.name:12}{len(cases):>10,}{sum(1 for c, _ in cases if c.served):>8,}"
            f"{sum(1 for c, _ in cases if c.entries):>9,}{sum(c.charged for c, _ in cases):>10,}"
            f"{over:>8,}{under:>8,}{findings.lowest[site.name]:>9,}"
        )
    grants = Counter(grant.status for grant in book.grants)
    say(f"top-ups: {grants[200]} confirmed, {sum(grants.values()) - grants[200]} not; ")
    say()


def print_rules(findings: Findings) -> None:
    """By rule: calls, and tokens charged over and under what the simulator generated for them."""
    calls: Counter[str] = Counter()
    over: Counter[str] = Counter()
    under: Counter[str] = Counter()
    for case, verdict in findings.cases:
        rule = "(WRONG)" if verdict.wrong else verdict.rule
        calls[rule] += 1
        over[rule] += max(0, case.charged - case.served)
        under[rule] += max(0, case.served - case.charged)
    say(f"{'explained by the rule':34}{'calls':>8}{'over':>8}{'under':>8}")
    for rule, count in calls.most_common():
        say(f"  {rule:32}{count:>8,}{over[rule]:>8,}{under[rule]:>8,}")
    lost = max((verdict.lost_s for _, verdict in findings.cases), default=0.0)
    say(f"most output lost with a killed worker: {lost:.2f} s of a stream")
    say()


def print_recovery(sites: Sequence[Site], book: Book, thrown: Sequence[Thrown], watch: Watch) -> None:
    """By kind, at the worst: until /readyz was red, and from the end until it was green, until served."""
    rows: dict[str, list[tuple[float | None, float | None, float | None]]] = {f.kind: [] for f in thrown}
    times = Counter(fault.kind for fault in thrown)
    for site in sites:
        for instance in site.instances:
            own = [fault for fault in thrown if fault.where in (instance.name, site.name)]
            upstream = [fault for fault in thrown if fault.where == "upstream"]
            for fault in own:
                green_s = watch.green_after(instance.name, fault.ended)
                served_s = served_after(book.attempts, instance.name, fault.ended)
                if not _overlap(fault, green_s, own):
                    red_s = watch.red_after(instance.name, fault.began, fault.ended + 1.0)
                    is_spoilt = _overlap(fault, served_s, [*own, *upstream])
                    rows[fault.kind].append((red_s, green_s, None if is_spoilt else served_s))
            for fault in upstream:
                served_s = served_after(book.attempts, instance.name, fault.ended)
                after = {each: served_after(book.attempts, instance.name, each.ended) for each in own}
                hidden = any(_overlap(each, after[each], [fault]) for each in own)
                if not hidden and not _overlap(fault, served_s, own):
                    rows[fault.kind].append((None, None, served_s))
    say(f"{'fault':36}{'times':>6}{'red after':>11}{'green after':>13}{'served after':>14}   (worst, s)")
    for kind, seen in sorted(rows.items()):
        say(
            f"  {kind:34}{times[kind]:>6}{_worst(r for r, _, _ in seen):>11}"
            f"{_worst(g for _, g, _ in seen):>13}{_worst(s for _, _, s in seen):>14}"
        )
    say(
        "  (–: it never was, or another fault was under way each time; starts take seconds of processor time)"
    )
    say()


def _worst(seconds: Iterable[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    return f"{max(known):.2f}" if known else "–"


def _overlap(fault: Thrown, recovery_s: float, others: Iterable[Thrown]) -> bool:
    """Whether another fault was under way between the beginning of this one and the end of its recovery."""
    until = fault.ended + recovery_s
    return any(other.began <= until and fault.began <= other.ended for other in others if other is not fault)


def slowest_503(
    sites: Sequence[Site], attempts: Iterable[Attempt], away: Mapping[str, Sequence[tuple[float, float]]]
) -> float:
    """The longest that a client waited to be told that the database is away, in seconds.

    Who waits for a gateway to start, or for a process in place of a killed one, waits for that.
    """
    killed = {i.name: [*i.kills, *i.stops] for site in sites for i in site.instances}
    return max(
        (
            a.ended - a.began
            for a in attempts
            if a.status == 503
            and any(b <= a.began <= e for b, e in away.get(a.site, ()))
            and not any(a.began - STARTS_WITHIN_S <= t <= a.ended for t in killed[a.instance])
        ),
        default=0.0,
    )


def times_of(
    sites: Sequence[Site], thrown: Iterable[Thrown], kinds: Collection[str]
) -> dict[str, list[tuple[float, float]]]:
    """By site, from when to when it was hit by faults of these kinds."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for fault in thrown:
        for site in sites:
            places = {site.name, *(instance.name for instance in site.instances)}
            if fault.where in places and fault.kind in kinds:
                found[site.name].append((fault.began, fault.ended))
    return found


def print_wrong(wrong: Sequence[str]) -> None:
    """What no rule explains."""
    say(f"{len(wrong)} differences that no rule explains" + (":" if wrong else "."))
    for words in wrong[:MOST_SHOWN]:
        say(f"- {words}")
    if len(wrong) > MOST_SHOWN:
        say(f"… and {len(wrong) - MOST_SHOWN} more")
