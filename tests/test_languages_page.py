"""The page of languages tells what comes along as it is now."""

from __future__ import annotations

from docs import languages
from storage import packs
from trainer.evaluation import suites


def test_the_table_is_what_there_is():
    assert languages.PAGE.read_text(encoding="utf-8") == languages.page(), "write it anew: python -m docs.languages"


def test_it_tells_every_language_that_something_comes_along_in():
    told = [line.split("`")[1] for line in languages.table().splitlines()[2:]]
    assert len(told) >= 12
    assert set(told) == {pack.language for pack in packs.every()} >= set(suites.languages())


def test_a_language_is_drawn_as_its_script_is():
    told = {line.split("`")[1]: line.split(" | ")[-1].strip(" |") for line in languages.table().splitlines()[2:]}
    assert (told["ar"], told["zh"], told["ja"], told["hi"]) == ("turned, joined", "wide", "wide", "marks")
    assert {told[language] for language in ("en", "es", "fr", "de", "pt", "it", "ru", "sw")} == {"plain"}
