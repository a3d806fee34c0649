"""Reduces LiteLLM's price list to the figures the gateway needs: ``python facts.py openai_models.json``.

The source is model_prices_and_context_window.json of BerriAI/litellm (MIT licence), cut to the models that
OpenAI itself serves; only two facts a model are kept: the size of its input and of its output, in tokens.
The result goes to ``models.json`` beside this file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MODELS = Path(__file__).with_name("models.json")
_TEXT_MODES = ("chat", "responses", "completion")
# Where OpenAI's model pages allow more output than the price list says, theirs counts: a ceiling that is
# too low would let a call cost more than its hold.
_OUTPUT = {"gpt-4": 8_192, "gpt-4-0613": 8_192, "babbage-002": 16_384, "davinci-002": 16_384}


def reduce(prices: dict[str, dict[str, object]]) -> dict[str, list[object]]:
    """Model name → [input tokens, output tokens] for the models that write text."""
    facts: dict[str, list[object]] = {}
    for name, price in sorted(prices.items()):
        if price.get("mode") in _TEXT_MODES and price.get("max_output_tokens") and not name.startswith("ft:"):
            facts[name] = [price["max_input_tokens"], _OUTPUT.get(name, price["max_output_tokens"])]
    return facts


if __name__ == "__main__":
    rows = reduce(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    MODELS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
