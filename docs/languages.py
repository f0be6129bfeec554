"""The table of docs/languages.md that tells what comes along for each language, from the program itself.

    python -m docs.languages

writes it anew, between two marks, and leaves the rest of the page as it is.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from storage import packs
from storage.languages import name, own_name, spoken
from trainer.evaluation import suites
from trainer.evaluation.items import UNSPACED
from trainer.judge.rubric import Rubric
from trainer.reward.language import detector
from workbench.demo.languages import spoken as spoken_in_the_demo

PAGE = Path(__file__).with_suffix(".md")
BEGIN, END = "<!-- written by python -m docs.languages -->", "<!-- end -->"
HEAD = (
    "", "prompts", "suites", "refusal phrases", "judge's rubric", "demo's prompts", "demo's rater knows it by",
    "told apart by", "repeats are of", "on screen",
)  # fmt: skip


def languages() -> list[str]:
    """Those that prompts come along in, in the order in which the app offers them."""
    return list(dict.fromkeys(pack.language for pack in packs.every()))


def table() -> str:
    """What comes along for each language, as a table of Markdown."""
    rows = [HEAD, ["---"] * len(HEAD), *(_row(language) for language in languages())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page() -> str:
    """The page as it should be: what is written by hand as it stands, and the table as it is now."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def _row(language: str) -> list[str]:
    prompts = [text for pack in packs.every() if pack.language == language for text in pack.prompts]
    called = name(language) if language == "en" else f"{name(language)} ({own_name(language)})"
    knows = spoken(language) in {spoken(label) for label in detector().labels}
    return [
        f"`{language}` {called}",
        str(len(prompts)),
        *_suites(language),
        "own" if language in Rubric.own().texts else "-",
        *_demo(language),
        "py3langid" if knows else "-",
        "characters" if spoken(language) in UNSPACED else "words",
        _drawn("".join(prompts)),
    ]


def _suites(language: str) -> tuple[str, str]:
    """How many items its suites have, all forms of one counted once; and how many phrases of refusal."""
    if language not in suites.languages():
        return "-", "-"
    items = {(item.suite, item.name) for item in suites.chosen([], [language])}
    return str(len(items)), str(len(suites.read(language).refusals))


def _demo(language: str) -> tuple[str, str]:
    """How many prompts the demo has, and how its simulated rater knows the language."""
    known = spoken_in_the_demo().get(language)
    if known is None:
        return "-", "-"
    return str(len(known.prompts)), "script" if known.scripts else f"{len(known.common_words)} words"


def _drawn(text: str) -> str:
    """What a script asks of a terminal."""
    letters = [letter for letter in text if letter.isalpha()]
    if 2 * sum(unicodedata.bidirectional(letter) in ("R", "AL") for letter in letters) > len(letters):
        return "turned, joined"
    if 2 * sum(unicodedata.east_asian_width(letter) == "W" for letter in letters) > len(letters):
        return "wide"
    return "marks" if any(unicodedata.category(sign) == "Mc" for sign in text) else "plain"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
