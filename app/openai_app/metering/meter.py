"""How a family of operations is metered: counted before the call, read from the answer after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from balances.usage import Estimate, Usage

# A request's JSON body, or the fields of its form (a file's field holds what is known of the file).
Request = dict[str, Any]
# An answer's JSON object, or an event's.
Answer = Mapping[str, Any]


def _model(request: Request) -> str:
    model = request.get("model")
    return model if isinstance(model, str) else ""


def _no_text(_: Answer) -> Iterable[tuple[int, str]]:
    return ()


def _never(_: Answer) -> bool:
    return False


def _no_cap(_: Request, __: int) -> Request:
    return {}


def _nothing_to_ask(_: Request) -> Request:
    return {}


@dataclass(frozen=True)
class Meter:
    """The rules of one family; each function takes parsed JSON and never raises, whatever it holds."""

    #: What a request will need; None: the operation is free and needs no hold.
    estimate: Callable[[Request], Estimate] | None
    #: The usage in an answer, or in an event of a stream, to that request; None where there is none.
    usage: Callable[[Answer, Request], Usage | None]
    #: The name that rates are looked up by.
    rated_as: Callable[[Request], str] = _model
    #: Whether a request without a model is refused.
    needs_model: bool = True
    #: The text that an event of a stream adds, by choice, for counting a stream that was cut.
    text: Callable[[Answer], Iterable[tuple[int, str]]] = _no_text
    #: Whether an event of a stream says that the work is over, whether it went well or not; a stream that
    #: ends with `[DONE]` need not say so.
    ends: Callable[[Answer], bool] = _never
    #: The field with the id of a file whose lines are the work, and what so many of its lines need.
    lines_field: str = ""
    estimate_lines: Callable[[Iterable[bytes], Request], Estimate] | None = None
    #: The body's fields to set for an output cap of so many tokens a choice.
    cap: Callable[[Request, int], Request] = _no_cap
    #: The body's fields to set so that a stream reports its usage, empty if it will.
    ask_for_usage: Callable[[Request], Request] = _nothing_to_ask


def _no_usage(_: Answer, __: Request) -> Usage | None:
    return None


FREE = Meter(estimate=None, usage=_no_usage, needs_model=False)
