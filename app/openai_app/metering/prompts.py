"""Plain texts given to a model without the framing of a chat: prompts, and inputs of embeddings."""

from __future__ import annotations

from .models import find
from .parts import text_of
from .tokens import count

# The models of the first generation, by the beginnings of their names; `models` knows the later ones.
# Source: the table of models in tiktoken (openai/tiktoken, MIT licence).
_FIRST_GENERATION = {
    "p50k_base": ("code-", "davinci-codex", "cushman-codex", "text-davinci-edit", "code-davinci-edit"),
    "r50k_base": ("ada", "babbage", "curie", "davinci", "text-similarity", "text-search", "code-search"),
}
_LATER = ("babbage-002", "davinci-002")
_LATE_P50K = ("text-davinci-002", "text-davinci-003", "text-davinci-edit")
_R50K_TEXT = ("text-davinci-001", "text-ada-001", "text-babbage-001", "text-curie-001")


def encoding_of(model: str) -> str:
    """The vocabulary of a model that takes plain text."""
    if model.startswith(_LATE_P50K):
        return "p50k_base"
    if model.startswith(_R50K_TEXT):
        return "r50k_base"
    if not model.removeprefix("ft:").startswith(_LATER):
        for encoding, beginnings in _FIRST_GENERATION.items():
            if model.startswith(beginnings):
                return encoding
    return find(model).family.encoding


def count_texts(given: object, model: str) -> tuple[int, int]:
    """Tokens of a text, of a list of texts, of a list of tokens or of lists of them; and how many it is."""
    encoding = encoding_of(model)
    if isinstance(given, list):
        if given and all(isinstance(each, int) for each in given):
            return len(given), 1
        total = sum(
            len(each) if isinstance(each, list) else max(count(text_of(each), encoding), 1) for each in given
        )
        return total, max(len(given), 1)
    # An empty text costs one token.
    return max(count(text_of(given), encoding), 1), 1
