"""Random JSON with an id of another's somewhere in it: found wherever it stands and however it is written."""

import json
import random
import re
from typing import Any

import pytest

from openai_app.catalogue import match
from openai_app.owned import ownership
from openai_app.owned.objects import REFERENCES
from openai_app.tests.attacks import new_ids

RESPONSES, _ = match("POST", "/responses")
# What people write under these is text, and never taken for an id.
TEXTS = ("input", "content", "text", "name", "arguments")
NAMES = ("a", "id", "type", "metadata", "tools", "b-c", "é", *TEXTS, *REFERENCES)
# A string of JSON, and within it an escape or a character that needs none.
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
CHARACTER = re.compile(r'\\u....|\\.|([^"\\])')


def random_value(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.2:
        return chance.choice(
            [None, True, 1, -2.5, "", "a text", 'with "quotation"', "back\\slash", "ft", "é\u2028"]
        )
    if chance.random() < 0.4:
        return [random_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(NAMES): random_value(chance, depth - 1) for _ in range(chance.randrange(1, 5))}


def with_id_in(value: Any, planted: str, chance: random.Random) -> Any:
    """`value` with the id as an element or a field of one of its lists or objects."""
    holders = [value]
    for holder in holders:
        inside = holder.values() if isinstance(holder, dict) else holder
        holders += [one for one in inside if isinstance(one, dict | list)]
    holder = chance.choice([one for one in holders if isinstance(one, dict)])
    name = chance.choice([name for name in NAMES if name not in TEXTS])
    holder[name] = chance.choice([planted, [planted], {"id": planted}, [{"x": [planted]}]])
    return value


def written(value: Any, chance: random.Random) -> bytes:
    """As JSON, some of the characters of its strings by their numbers."""
    share = chance.choice((0.0, 0.1, 1.0))

    def spelled(found: re.Match[str]) -> str:
        return f"\\u{ord(found[0]):04x}" if found[1] and chance.random() < share else found[0]

    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    return STRING.sub(lambda string: CHARACTER.sub(spelled, string[0]), text).encode()


@pytest.mark.parametrize("seed", range(20))
def test_an_id_is_found_wherever_it_stands(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        kind, planted = chance.choice(sorted(new_ids().items()))
        request = with_id_in({"model": "gpt-4o-mini", "any": random_value(chance, 4)}, planted, chance)
        body = written(request, chance)
        assert json.loads(body) == request
        assert ownership.may_mention(body), (kind, body)
        found = {mention.object_id for mention in ownership.mentions(RESPONSES, {}, b"", request)}
        assert planted in found, (kind, body)
