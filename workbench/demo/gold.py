"""A simulated rater with known taste: brief, finished answers in the language of the question, without repetition.

What it says is stored with `source = simulated`. Its noise-free taste is the gold reward that the demo measures; the
trainer only ever sees the noisy scores.
"""

from __future__ import annotations

import random
import re
import unicodedata

# Words that mark a language among those written in Latin letters.
FUNCTION_WORDS = {
    "en": "the a is of and to in it that for you are with this was on be as can not have",
    "es": "el la los las de que y en un una es por con para se del al lo como su más no",
    "fr": "le la les de des et en un une est que pour du dans qui sur pas plus ce vous au",
    "de": "der die das und ist ein eine zu den mit nicht von es ich sie auf für dem sich auch",
    "pt": "o a os as de que e em um uma é para com não do da se por mais no na ao",
    "sw": "na ya wa ni kwa za katika la kuwa hii yako cha vya kama au si mimi wewe hiyo ili",
}
SCRIPTS = {"zh": ("CJK",), "ja": ("HIRAGANA", "KATAKANA", "CJK"), "ar": ("ARABIC",), "hi": ("DEVANAGARI",)}
# A letter of these scripts carries about this many letters of an alphabet.
DENSITY = {"zh": 3.0, "ja": 2.2}
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
    length = len(text.strip()) * DENSITY.get(language, 1.0)
    low, high = BRIEF
    if length < low:
        return length / low
    return max(0.0, 1 - max(0.0, length - high) / (2 * high))


def _in_language(text: str, language: str) -> float:
    """How far a text is in a language: by its script, or by which language's function words it uses most."""
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return 0.0
    if language in SCRIPTS:
        own = sum(unicodedata.name(letter, "").startswith(SCRIPTS[language]) for letter in letters)
        return own / len(letters)
    words = re.findall(r"[^\W\d_]+", text.lower())
    hits = {name: sum(word in listed.split() for word in words) for name, listed in FUNCTION_WORDS.items()}
    return hits[language] / (hits[language] + max(n for name, n in hits.items() if name != language) + 1e-9)


def _variety(text: str) -> float:
    """The share of distinct words (of distinct letters in pairs, where words are not spaced)."""
    words = text.lower().split()
    if len(words) < 4:
        words = [text[place : place + 2] for place in range(0, len(text), 2)]
    return len(set(words)) / len(words) if words else 0.0
