"""Which language a text is in, as far as it can be told: py3langid (langid.py, Lui and Baldwin 2012), 97 languages."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from storage.languages import spoken

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier


def is_in(text: str, language: str) -> bool:
    """Whether a text is rather in a language (a BCP 47 tag) than in any other; false of a text without letters."""
    found = probabilities(text)
    return bool(found) and max(found, key=found.__getitem__) == spoken(language)


def leaning(text: str, language: str) -> float:
    """How much rather a text is in a language (a BCP 47 tag) than in the likeliest other: the difference between both
    probabilities, from -1 to 1.

    Near 0 of a few words that could be of many languages; 0 of a text without letters, and of a language that the
    detector does not know.
    """
    found, own = probabilities(text), spoken(language)
    if own not in found:
        return 0.0
    return found.pop(own) - max(found.values())


def probabilities(text: str) -> dict[str, float]:
    """How likely each language is, by its primary subtag; they add up to 1. Empty for a text without letters."""
    if not any(character.isalpha() for character in text):
        return {}
    found: dict[str, float] = {}
    for label, probability in detector().rank(text):
        found[spoken(label)] = found.get(spoken(label), 0.0) + probability
    return found


@cache
def detector() -> LanguageIdentifier:
    """The detector, read once. Its probabilities are tempered by the length of the text."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
