"""Language tags: one rule for which are valid, their normal form, and their names."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import languages
from storage.languages import BadTagError, is_tag, matching, name, normal, own_name, renamed, spoken


@pytest.mark.parametrize(
    ("typed", "tag"),
    [
        ("iw", "he"), ("zh-tw", "zh-TW"), ("ZH-HANS", "zh-Hans"), ("pt_BR", "pt-BR"), ("pt-br", "pt-BR"),
        ("eng_Latn", "en"), ("zho", "zh"), (" sw ", "sw"), ("zh-hant-tw", "zh-Hant-TW"), ("i-klingon", "tlh"),
        ("und", "und"), ("es-419", "es-419"), ("ca-valencia", "ca-valencia"),
    ],
)  # fmt: skip
def test_the_normal_form(typed: str, tag: str) -> None:
    assert normal(typed) == tag
    assert normal(tag) == tag


@pytest.mark.parametrize(
    "text", ["", " ", "e", "es ar", "\x1b[31m", "[/b]", "Deutsch", "Deutsch, oder?", "xx", "日本語", "en-"]
)
def test_what_is_no_tag(text: str) -> None:
    assert not is_tag(text)
    with pytest.raises(BadTagError):
        normal(text)


@given(st.text(max_size=12) | st.from_regex(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,4}){0,3}", fullmatch=True))
def test_any_text_is_refused_or_has_a_normal_form_that_stays(text: str) -> None:
    if is_tag(text):
        assert normal(normal(text)) == normal(text)
        assert matching(text)[-1:], "the app offers every tag that an import takes"
    own_name(text), name(text), spoken(text)  # never raise, whatever older rows hold


def test_names() -> None:
    assert (name("pt-BR"), own_name("pt")) == ("Portuguese (Brazil)", "português")
    assert (name("sw"), own_name("sw")) == ("Swahili", "Kiswahili")
    assert (name("no such tag"), own_name("qaa")) == ("no such tag", "qaa")


def test_only_a_change_of_name_is_a_change_of_meaning() -> None:
    assert {tag: renamed(tag) for tag in ("tl", "mo", "sh")} == {"tl": "fil", "mo": "ro", "sh": "sr-Latn"}
    assert not any(renamed(tag) for tag in ("iw", "eng", "zho", "pt_br", "en", "und", "x-mine"))


def test_a_detectors_labels_and_tags_of_prompts_meet() -> None:
    assert spoken("nb") == spoken("nn-NO") == "no"
    assert spoken("tl") == spoken("fil")
    assert spoken("cmn-Hant") == spoken("zh-TW") == "zh"
    assert spoken("pt-BR") == "pt"
    assert spoken("id") != spoken("ms")


def test_languages_are_found_by_tag_own_name_and_english_name() -> None:
    assert [tag for tag, _ in matching("sw")][:1] == ["sw"]
    assert matching("fre") == [("fr", "français")]
    assert matching("日") == [("ja", "日本語")]
    assert matching("zh-hant-tw")[-1][0] == "zh-Hant-TW"
    assert matching("no such language") == []
    assert [tag for tag, _ in matching("")] == list(languages.OFFERED)


def test_every_language_offered_is_in_normal_form_and_has_a_name_of_its_own() -> None:
    for tag in languages.OFFERED:
        assert normal(tag) == tag
        assert own_name(tag) != tag


def test_the_tables_are_read_when_a_tag_is_first_looked_at() -> None:
    code = (
        "import sys, workbench.cli, workbench.shell.app, storage.exchange.importing\n"
        "assert not any(m.startswith('langcodes') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
