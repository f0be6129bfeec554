"""A simulated rater with known taste: brief, finished answers in the language of the question, without repetition.

What it says is stored with `source = simulated`. Its noise-free taste is the gold reward that the demo measures; the
trainer only ever sees the noisy scores.
"""

from __future__ import annotations

import random
import re
import unicodedata

from workbench.demo.languages import spoken

SCALE = (1.0, 5.0)
BRIEF = (20, 140)  # letters of an alphabet: shorter says too little, longer too much
NOISE = 0.35  # standard deviation of a simulated score


def gold_score(text: str, language: str, finish_reason: str) -> float:
    """The taste of the simulated rater, on a scale of 1 to 5."""
    finished = 1.0 if finish_reason == "eos" else 0.0
    taste = 0.25 * _brevity(text, language) + 0.25 * _in_language(text, language) + 0.15 * _variety(text)
    share = 0.35 * finished + taste
    return SCALE[0] + (SCALE[1] - SCALE[0]) * share


def simulated_score(text: str, language: str, finish_reason: str, rng: random.Random) -> float:
    """What the simulated rater says: the gold score with noise, in tenths, within the scale."""
    noisy = gold_score(text, language, finish_reason) + rng.gauss(0, NOISE)
    return min(max(round(noisy, 1), SCALE[0]), SCALE[1])


def _brevity(text: str, language: str) -> float:
    """1 inside the wanted length, falling to 0 at none and at three times too much."""
    length = len(text.strip()) * _density(language)
    low, high = BRIEF
    if length < low:
        return length / low
    return max(0.0, 1 - max(0.0, length - high) / (2 * high))


def _density(language: str) -> float:
    """About how many letters of an alphabet one of a language is worth; 1 where the demo does not know it."""
    known = spoken().get(language)
    return 1.0 if known is None else known.density


def _in_language(text: str, language: str) -> float:
    """How far a text is in a language: by its script, or by which language's function words it uses most."""
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return 0.0
    if scripts := spoken()[language].scripts:
        own = sum(unicodedata.name(letter, "").startswith(scripts) for letter in letters)
        return own / len(letters)
    words = re.findall(r"[^\W\d_]+", text.lower())
    hits = {tag: sum(word in one.common_words for word in words) for tag, one in spoken().items() if one.common_words}
    return hits[language] / (hits[language] + max(n for name, n in hits.items() if name != language) + 1e-9)


def _variety(text: str) -> float:
    """The share of distinct words (of distinct letters in pairs, where words are not spaced)."""
    words = text.lower().split()
    if len(words) < 4:
        words = [text[place : place + 2] for place in range(0, len(text), 2)]
    return len(set(words)) / len(words) if words else 0.0
