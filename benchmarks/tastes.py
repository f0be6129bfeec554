"""Three tastes of style that a person could hold, as pure functions of a text and its language, from 1 to 5.

None asks whether an answer ended, or how long it is. But style has to show in something: below eight words an answer
is worth the less the fewer it has, down to the lowest score for none. A single word has no style, and a rater of style
who is honest does not call it beautiful.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Taste = Callable[[str, str], float]

SCALE = (1.0, 5.0)
NOISE = 0.35  # standard deviation of a simulated score
ENOUGH = 8  # words in which a style shows
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
LIST_SIGN = re.compile(r"\n|:|(?:^|\s)(?:\d+\.|[-*•])\s")
COMMAS_A_WORD, PERSONS_A_WORD = 0.2, 0.16  # as many as are wanted
# Who speaks, and to whom. German tells its polite forms from others by their capital.
PERSONS = {
    "en": "i i'm i've i'll i'd me my mine myself we we're us our you you're you've you'll you'd your yours yourself",
    "de": "ich mich mir mein meine meinen meiner wir uns unser unsere du dich dir dein deine deinen euch "
    "Sie Ihnen Ihr Ihre Ihren Ihrem",
    "es": "yo me mi mis mí conmigo nosotros nos nuestro nuestra tú tu tus te ti contigo usted ustedes vos",
    "fr": "je j'ai j'adore j'aime me moi mon ma mes nous notre nos tu te toi ton ta tes vous votre vos",
}
# Letters of a word in texts of the language, about.
WORD_LENGTH = {"en": 4.4, "de": 5.2, "es": 4.7, "fr": 4.5}


def linked(text: str, language: str) -> float:
    """Flowing sentences with clauses linked by commas, rather than lists, line breaks and colons."""
    words = WORD.findall(text)
    commas = len(re.findall("[,;]", text)) / max(1, len(words))
    return _scored(0.3 + 0.7 * min(1.0, commas / COMMAS_A_WORD) - 0.15 * len(LIST_SIGN.findall(text)), words)


def speaking(text: str, language: str) -> float:
    """A personal voice: somebody speaks and somebody is spoken to, I and you and we, and something is asked back."""
    words = WORD.findall(text.replace("’", "'"))
    known = {*PERSONS[language].split(), *PERSONS["en"].split()}
    said = sum(word in known or (word.lower() in known and word.lower() != "sie") for word in words)
    asks = 0.25 * ("?" in text)
    return _scored(0.15 + 0.6 * min(1.0, said / max(1, len(words)) / PERSONS_A_WORD) + asks, words)


def plain(text: str, language: str) -> float:
    """Plain words: shorter than the language's usual, by their mean number of letters."""
    words = WORD.findall(text)
    letters = sum(map(len, words)) / max(1, len(words))
    return _scored((WORD_LENGTH[language] + 1.4 - letters) / 2.2, words)


TASTES: dict[str, Taste] = {"linked": linked, "speaking": speaking, "plain": plain}


def simulated(score: float, rng: random.Random) -> float:
    """What a rater of this taste says: the score with noise, in tenths, within the scale."""
    return min(max(round(score + rng.gauss(0, NOISE), 1), SCALE[0]), SCALE[1])


def word_count(text: str) -> int:
    """Words in a text."""
    return len(WORD.findall(text))


def _scored(share: float, words: list[str]) -> float:
    """A share from 0 to 1 on the scale, as far as there are words that show it."""
    return SCALE[0] + (SCALE[1] - SCALE[0]) * min(max(share, 0.0), 1.0) * min(1.0, len(words) / ENOUGH)
