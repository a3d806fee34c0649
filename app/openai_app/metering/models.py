"""What is known of a model from its name: how it counts, and how much it can read and write.

The counting rules of a family come from OpenAI's cookbook and image guide and, where those are silent, from
fitting recorded calls; the sizes in ``models.json`` from LiteLLM's price list (see ``facts.py``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tiles:
    """An image costs ``base`` tokens, and at high detail ``tile`` more for each square of 512 pixels."""

    base: int
    tile: int


@dataclass(frozen=True, slots=True)
class Patches:
    """An image costs ``multiplier`` tokens for each patch of 32 pixels, at most ``budget`` patches.

    ``original`` is the budget at the detail of that name, ``auto`` at the automatic one, where they differ.
    ``frame`` more tokens surround it; ``rounding`` is added before the product is cut to a whole number.
    """

    multiplier: float
    budget: int
    original: int | None = None
    auto: int | None = None
    frame: int = 1
    rounding: float = 0.5


@dataclass(frozen=True, slots=True)
class Family:
    """How the models whose names start with ``prefix`` count a chat. All figures are tokens.

    ``message``, ``name``: framing of each message besides its role, and of a name in it.
    ``reply``: what opens the answer. ``assistant``: more for each earlier answer.
    ``tools``: once, when there are any functions. ``old_tools``: they are shown in the older shape.
    ``system``: a system message that the upstream adds for functions or a format.
    ``schema``: opening an answer in a format. ``call``: framing of a function call.
    ``choice``: forcing one function.
    """

    prefix: str
    encoding: str = "o200k_base"
    message: int = 3
    name: int = 1
    reply: int = 3
    assistant: int = 0
    tools: int = -1
    system: int = 4
    schema: int = 2
    call: int = 3
    choice: int = 6
    old_tools: bool = False
    image: Tiles | Patches = Tiles(85, 170)


def _reasoning(prefix: str, image: Tiles | Patches, assistant: int = 2) -> Family:
    return Family(
        prefix,
        reply=2,
        assistant=assistant,
        tools=84,
        system=1,
        call=7,
        choice=0,
        image=image,
    )


_CL100K = "cl100k_base"
_MINI = Patches(1.62, 1536)
_NANO = Patches(2.46, 1536)
_LARGE = Patches(1.0, 2500, original=10_000)
_LARGEST = Patches(1.0, 2500, original=10_000, auto=10_000)

# The longest prefix that fits wins.
_FAMILIES = (
    Family("gpt-3.5", _CL100K),
    Family("gpt-35", _CL100K),
    Family("gpt-3.5-turbo-0301", _CL100K, message=4, name=-1),
    Family("gpt-3.5-turbo-0613", _CL100K, choice=3, old_tools=True),
    Family("gpt-4", _CL100K, choice=3, old_tools=True),
    Family("gpt-4-turbo", _CL100K),
    Family("gpt-4-vision", _CL100K),
    Family("gpt-4-1106", _CL100K),
    Family("gpt-4-0125", _CL100K),
    Family("gpt-4o"),
    # Only the text is counted: the framing is the search's.
    Family("gpt-4o-search", message=-1, reply=0),
    Family("gpt-4o-mini-search", message=-1, reply=0),
    Family("gpt-4o-mini", image=Tiles(2833, 5667)),
    Family("gpt-4.1"),
    Family("gpt-4.1-mini", image=Patches(1.62, 1536, frame=2, rounding=0)),
    Family("gpt-4.1-nano", image=Patches(2.46, 1536, frame=2, rounding=0)),
    Family("gpt-4.5"),
    Family("chatgpt-4o"),
    Family("gpt-audio"),
    Family("computer-use-preview", image=Tiles(65, 129)),
    _reasoning("gpt-5", image=Tiles(70, 140)),
    _reasoning("gpt-5-mini", image=_MINI),
    _reasoning("gpt-5-nano", image=_NANO),
    _reasoning("gpt-5.1-codex-mini", image=Patches(1.0, 1536)),
    _reasoning("gpt-5.2", image=Patches(1.0, 1536)),
    _reasoning("gpt-5.3", image=Patches(1.0, 1536)),
    _reasoning("gpt-5.4", image=_LARGE),
    _reasoning("gpt-5.4-mini", image=_MINI),
    _reasoning("gpt-5.4-nano", image=_NANO),
    _reasoning("gpt-5.5", image=_LARGEST),
    _reasoning("gpt-5.6", image=_LARGEST),
    _reasoning("gpt-6", image=_LARGEST),
    Family("o3-mini", reply=2),
    _reasoning("o1", image=Tiles(75, 150), assistant=0),
    # No rule is known: the recorded calls cost 24 to 50 tokens more, about 12 of them a message.
    Family("o1-preview", message=15, reply=16),
    Family("o1-mini"),
    _reasoning("o3", image=Tiles(75, 150), assistant=0),
    _reasoning("o4-mini", image=Patches(1.72, 1536), assistant=0),
    Family("davinci-002", _CL100K),
    Family("babbage-002", _CL100K),
    Family("text-embedding", _CL100K),
    Family("text-davinci", "p50k_base"),
    Family("text-curie", "r50k_base"),
    Family("text-babbage", "r50k_base"),
    Family("text-ada", "r50k_base"),
)
# A model that nobody has heard of: today's vocabulary, the dearer of the known framings.
# What any model is taken to write at most about which nothing is known: as much as the longest writers do.
MOST_OUTPUT = 131_072
_UNKNOWN = Family("", image=_LARGEST, assistant=2, tools=84, call=7)

_SNAPSHOT = re.compile(r"[-_](?:\d{4}[-_]\d{2}[-_]\d{2}|\d{4})$")


@dataclass(frozen=True, slots=True)
class Model:
    """``context`` and ``max_output`` in tokens; the first is None where nothing is known."""

    name: str
    family: Family
    context: int | None
    max_output: int


@cache
def _sizes() -> dict[str, tuple[int, int]]:
    rows = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))
    return {name: (row[0], row[1]) for name, row in rows.items()}


@lru_cache(maxsize=1024)
def find(name: str) -> Model:
    """The model of that name, be it an alias, a dated snapshot, ``ft:…``, ``openai/…`` or unknown."""
    base = name.rsplit("/", 1)[-1]
    if base.startswith("ft:"):
        base = base.split(":")[1]
    families = [family for family in _FAMILIES if base.startswith(family.prefix)]
    family = max(families, key=lambda family: len(family.prefix), default=_UNKNOWN)
    sizes = _sizes()
    context, max_output = sizes.get(base) or sizes.get(_SNAPSHOT.sub("", base)) or (None, None)
    return Model(base, family, context, max_output or MOST_OUTPUT)
