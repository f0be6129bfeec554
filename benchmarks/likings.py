"""What a person could like in an answer, as pure functions of a text and its language, from 1 to 5.

Three are of style (`STYLE`), and five of different kinds (`KINDS`): style, language, form, content and refusal. None
asks whether an answer ended, or how long it is. But a liking has to show in something: below eight words an answer is
worth the less the fewer it has, down to the lowest score for none. An honest rater does not call a single word
beautiful, nor warm, nor modest.

`TUNED` names those that settings were chosen on; what is claimed of the program is claimed of the others.
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
# The commonest words of each language that are no words of the others.
COMMON = {
    "en": "the and of to is that it for you with as are be this have from or by your can not they which will",
    "de": "der die das und ist nicht zu den mit sie ein eine auf für sich von dem wie kann sind oder auch wenn",
    "es": "el los las y una por con para del como su lo más pero puede al está muy ser hay tiene también cuando",
    "fr": "et est une dans pour qui pas ce il du au vous avec sont plus ou cette être nous aux c'est cela peut",
}
PIECE = re.compile(r"[.!?:;]+(?:\s|$)|\n+")
WARM_A_WORD = 0.1
# Beginnings of words.
WARM = {
    "en": "love lovely good great happy beaut enjoy warm kind friend nice wonder joy hope sweet delic smile "
    "special best fun perfect care glad welcome peace gentle excit amazing favorite favourite",
    "de": "lieb gut schön freu freund glück warm wunder toll gern best herz freundlich süß lecker spaß lächel "
    "besonder hoff angenehm fröhlich genieß perfekt willkommen nett friedlich",
    "es": "amor amig buen feliz felic hermos bell alegr disfrut encant maravill cariñ dulce mejor perfect "
    "delicios sonri especial amable esperan agradable gust querid paz bonit",
    "fr": "amour aim ami bon beau bel heureu bonheur joie merveill agréable doux douce chaleur plaisir meilleur "
    "parfait délici sourire spécial gentil espoir cher content paix joli",
}
HEDGES_A_WORD = 0.125
HEDGES = {
    "en": "may might could can would should often usually sometimes generally typically if but however although not "
    "some perhaps maybe possible possibly likely seems depends",
    "de": "kann können könnte könnten würde sollte sollten oft meist manchmal normalerweise wenn falls aber jedoch "
    "nicht einige vielleicht möglich möglicherweise wahrscheinlich scheint etwa",
    "es": "puede pueden podría podrían debería suele suelen veces generalmente normalmente si pero aunque embargo no "
    "algunos algunas quizás posible posiblemente probablemente parece depende",
    "fr": "peut peuvent pourrait pourraient devrait souvent parfois généralement si mais cependant toutefois pas "
    "quelques certains possible possiblement probablement semble dépend",
}
REFUSALS = {
    "en": "sorry, apolog, i can't, i cannot, i'm not able, as an ai, language model, i don't know, unable to, not sure",
    "de": "tut mir leid, entschuldig, ich kann nicht, als ki, sprachmodell, ich weiß nicht, nicht sicher, leider",
    "es": "lo siento, disculp, no puedo, como ia, modelo de lenguaje, no sé, no estoy segur, lamento, perdón",
    "fr": "désolé, excus, je ne peux pas, modèle de langage, je ne sais pas, pas sûr, malheureusement, pardon",
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


def native(text: str, language: str) -> float:
    """The answer is in the question's language: its commonest words are, and not those of the other three."""
    words = [word.lower() for word in WORD.findall(text.replace("’", "'"))]
    counts = {own: sum(word in common.split() for word in words) for own, common in COMMON.items()}
    mine, others = counts[language], max(count for own, count in counts.items() if own != language)
    return _scored(0.5 + (mine - others) / max(4, mine + others) / 2, words)


def brisk(text: str, language: str) -> float:
    """Form: short sentences and lines, of four words or fewer; those of fourteen and more are liked least."""
    words = WORD.findall(text)
    pieces = [piece for piece in PIECE.split(text) if WORD.search(piece)]
    return _scored((14 - len(words) / max(1, len(pieces))) / 10, words)


def warm(text: str, language: str) -> float:
    """Content: it speaks of what is good, dear and beautiful; one such word in ten is as good as more."""
    words = WORD.findall(text)
    glad = sum(word.lower().startswith(tuple(WARM[language].split())) for word in words)
    return _scored(0.1 + 0.9 * min(1.0, glad / max(1, len(words)) / WARM_A_WORD), words)


def modest(text: str, language: str) -> float:
    """Refusal: it holds back. It says may, often, if and but, one such word in eight, or that it cannot tell at all."""
    words = WORD.findall(text.replace("’", "'"))
    said = f" {text.lower().replace('’', chr(39))}"
    refuses = any(sign in said for sign in REFUSALS[language].split(", "))
    hedges = sum(word.lower() in HEDGES[language].split() for word in words)
    return _scored(1.0 if refuses else 0.1 + 0.9 * hedges / max(1, len(words)) / HEDGES_A_WORD, words)


STYLE: dict[str, Taste] = {"linked": linked, "speaking": speaking, "plain": plain}
KINDS: dict[str, Taste] = {"speaking": speaking, "native": native, "brisk": brisk, "warm": warm, "modest": modest}
TASTES: dict[str, Taste] = STYLE | KINDS
TUNED = ("linked", "speaking", "plain", "native", "brisk")


def simulated(score: float, rng: random.Random) -> float:
    """What a rater of this taste says: the score with noise, in tenths, within the scale."""
    return min(max(round(score + rng.gauss(0, NOISE), 1), SCALE[0]), SCALE[1])


def word_count(text: str) -> int:
    """Words in a text."""
    return len(WORD.findall(text))


def _scored(share: float, words: list[str]) -> float:
    """A share from 0 to 1 on the scale, as far as there are words that show it."""
    return SCALE[0] + (SCALE[1] - SCALE[0]) * min(max(share, 0.0), 1.0) * min(1.0, len(words) / ENOUGH)
