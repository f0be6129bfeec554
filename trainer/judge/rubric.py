"""What a judge is asked: for each language a question about one answer, and one about two.

A rubric is TOML: `score`, a text with {prompt} and {answer}, to be answered with a digit from 1 to 5; and `pair`, with
{prompt}, {a} and {b}, to be answered with A or B. In a file of one's own these stand at the top, for every language, or
in a table for each ([en], [sw]). Where a language has none, that of the prompt's language without its region serves,
else what stands at the top, and else English.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from storage.errors import UsageError
from storage.feedback.kinds import RatingKind
from storage.feedback.unjudged import Item
from storage.languages import spoken
from storage.troubles import told_of_file

ENGLISH, ANY = "en", ""
SCORES, SIDES = ("1", "2", "3", "4", "5"), ("A", "B")
_PLACES = {"score": {"prompt", "answer"}, "pair": {"prompt", "a", "b"}}
_PLACE = re.compile(r"\{(prompt|answer|a|b)\}")


@dataclass(frozen=True)
class Question:
    """A text to be answered with one of some labels."""

    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Rubric:
    """The texts by language and by what is asked, `score` or `pair`.

    Attributes:
        name: by which ratings name it as their guideline: it changes with any of the texts.
    """

    name: str
    texts: Mapping[str, Mapping[str, str]]

    @classmethod
    def own(cls) -> Rubric:
        """The one that comes with the program."""
        folder = resources.files("trainer.judge").joinpath("rubrics")
        files = {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in folder.iterdir()}
        return cls._of("helpful", {language: tomllib.loads(text) for language, text in sorted(files.items())})

    @classmethod
    def read(cls, file: Path) -> Rubric:
        """One of the user's own.

        Raises:
            UsageError: the file is none, with what is wrong in it and where.
        """
        try:
            with told_of_file(f"cannot read {file}"):
                found = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} is no TOML: {error}", "docs/judge.md shows a rubric") from error
        tables = {key: value for key, value in found.items() if isinstance(value, dict)}
        top = {key: value for key, value in found.items() if key not in tables}
        texts = ({ANY: top} if top else {}) | tables
        for language, table in texts.items():
            _check(table, f"{file}, [{language}]" if language else str(file))
        if not texts:
            raise UsageError(f"{file} has no rubric", "docs/judge.md shows one")
        return cls._of(file.stem, texts)

    @classmethod
    def _of(cls, name: str, texts: Mapping[str, Mapping[str, str]]) -> Rubric:
        digest = hashlib.sha256(repr(sorted((key, sorted(own.items())) for key, own in texts.items())).encode())
        return cls(f"rubric {name} {digest.hexdigest()[:8]}", texts)

    def language(self, language: str, asked: str) -> str | None:
        """The language of the text that serves a prompt's language; None where there is none at all."""
        for own in (language, spoken(language), ANY, ENGLISH):
            if asked in self.texts.get(own, {}):
                return own
        return None

    def questions(self, item: Item) -> list[Question]:
        """What is asked about an item: one question about an answer; two about a pair, in both orders.

        Raises:
            UsageError: the rubric has no text for it.
        """
        asked = "pair" if item.kind == RatingKind.PAIR else "score"
        language = self.language(item.prompt.language, asked)
        if language is None:
            raise UsageError(
                f"the rubric has no `{asked}` text for {item.prompt.language}",
                f"add one, or judge other kinds alone (--kind {'score' if asked == 'pair' else 'pair'})",
            )
        text, prompt = self.texts[language][asked].strip(), item.prompt.transcript
        if asked == "score":
            return [Question(_filled(text, prompt=prompt, answer=item.answers[0].text), SCORES)]
        one, other = (answer.text for answer in item.answers)
        return [
            Question(_filled(text, prompt=prompt, a=one, b=other), SIDES),
            Question(_filled(text, prompt=prompt, a=other, b=one), SIDES),
        ]


def _filled(text: str, **parts: str) -> str:
    """The text with its places filled in one pass: what stands in an answer is never taken for a place."""
    return _PLACE.sub(lambda found: parts.get(found[1], found[0]), text)


def _check(table: Mapping[str, Any], where: str) -> None:
    for asked, text in table.items():
        if asked not in _PLACES or not isinstance(text, str):
            raise UsageError(f"{where}: {asked!r} is no part of a rubric", "its texts are called `score` and `pair`")
        missing = _PLACES[asked] - set(_PLACE.findall(text))
        if missing:
            places = ", ".join(f"{{{place}}}" for place in sorted(missing))
            raise UsageError(f"{where}: `{asked}` lacks {places}", "that is where the texts to be judged are put")
