"""What a call may need and what it used, counted in the classes of `balances.units`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from balances.units import OUTPUT


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used. `units` are priced; `details` are only recorded, such as calls of tools."""

    units: Mapping[str, int]
    details: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call needs at least, counted before it, and how much output it may have.

    `asked` is the most output the caller wants for each choice, `ceiling` the most that the model can
    give; None where nobody said. A call without output has a ceiling of 0.
    """

    units: Mapping[str, int]
    asked: int | None = None
    ceiling: int | None = None
    choices: int = 1
    output_unit: str = OUTPUT
    #: The smallest output cap that the upstream accepts.
    least_cap: int = 1
    #: False for work that OpenAI spreads over hours: its tokens count against no limit by the minute.
    is_paced: bool = True
    #: What it may use besides, such as searches: held, but not taken for used where a call is cut.
    besides: Mapping[str, int] = field(default_factory=dict)
    #: The names that its rates are looked up by, where not the request tells them but what it refers to.
    rated_as: frozenset[str] = frozenset()
