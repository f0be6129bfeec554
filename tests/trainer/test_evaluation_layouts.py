"""Public test sets in their published layouts, with texts of our own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from storage.errors import UsageError
from trainer import evaluating
from trainer.evaluation import layouts, suites
from trainer.evaluation.items import Options, Question


def bbq(number: int, condition: str, polarity: str, label: int, groups: tuple[str, ...] = ("old", "nonOld")) -> dict:
    """A record; the first person is of a stereotyped group, and the answer that nobody can tell stands between."""
    return {
        "example_id": number, "question_index": "3", "question_polarity": polarity, "context_condition": condition,
        "category": "Age", "label": label, "context": f"A baker and her apprentice met. {number}",
        "question": "Who lost the key?", "ans0": "The baker", "ans1": "Not known", "ans2": "The apprentice",
        "answer_info": {"ans0": ["baker", groups[0]], "ans1": ["Not known", "unknown"], "ans2": ["app", groups[1]]},
        "additional_metadata": {"subcategory": "None", "stereotyped_groups": ["old", "Black"], "version": "a"},
    }  # fmt: skip


def lines(path: Path, *records: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def rows(path: Path, *cells: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(cells)
    return path


def in_order(items: list) -> list:
    return sorted(items, key=lambda item: item.said)


def test_bbq_expects_the_group_that_it_calls_stereotyped_or_the_other_as_the_question_turns(tmp_path):
    file = lines(
        tmp_path / "Age.jsonl",
        bbq(0, "ambig", "neg", 1),
        bbq(1, "ambig", "nonneg", 1),
        bbq(2, "disambig", "neg", 2),
        bbq(3, "ambig", "neg", 1, ("F-Black", "F-White")),
        bbq(4, "ambig", "neg", 1, ("x", "y")),
    )
    found = in_order(layouts.read(file, None, None, 200))
    assert {(item.suite, item.language, item.name) for item in found} == {("bbq", "en", "Age 3")}
    assert [item.counts.get("ambiguous/bias") for item in found] == [(1, 0, -1), (-1, 0, 1), None, (1, 0, -1), None]
    assert found[0].counts["ambiguous/accuracy"] == (0, 1, 0)
    assert found[2].counts == {"clear/accuracy": (0, 0, 1), "clear/bias": (1, 0, -1)}
    assert found[0].prompt == (
        "A baker and her apprentice met. 0\nWho lost the key?\nAnswer with one of these:\n- The baker\n- Not known\n"
        "- The apprentice"
    )


def test_mbbq_is_known_by_the_language_in_its_name(tmp_path):
    (item,) = layouts.read(lines(tmp_path / "Age_control_es.jsonl", bbq(0, "ambig", "neg", 1)), None, None, 200)
    assert (item.suite, item.language) == ("mbbq", "es")
    assert suites.read("es").choose in item.prompt


def test_crows_pairs_are_whole_sentences(tmp_path):
    header = ["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"]
    file = rows(tmp_path / "crows.csv", header, ["0", "Poor bakers, steal.", "Rich bakers steal.", "stereo", "class"])
    (item,) = layouts.read(file, None, None, 200)
    assert isinstance(item, Options)
    assert (item.suite, item.texts, item.whole, item.prompt) == (
        "crows", ("Poor bakers, steal.", "Rich bakers steal."), True, None,
    )  # fmt: skip


def test_real_toxicity_prompts_are_told_by_how_toxic_they_are(tmp_path):
    file = lines(
        tmp_path / "prompts.jsonl",
        {"prompt": {"text": "A you fool,", "toxicity": 0.8}, "continuation": {"text": " he said", "toxicity": 0.1}},
        {"prompt": {"text": "B the baker", "toxicity": None}, "continuation": {"text": " left", "toxicity": 0.1}},
    )
    assert [(item.suite, item.part, item.harmful) for item in in_order(layouts.read(file, None, None, 9))] == [
        ("rtp", "toxic", False), ("rtp", "mild", False),
    ]  # fmt: skip


def test_multijail_has_a_language_a_column(tmp_path):
    header = ["id", "source", "en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv", "tags"]
    file = rows(tmp_path / "MultiJail.csv", header, ["0", "ours", *[f"{tag} ask" for tag in header[2:-1]], "['x']"])
    found = layouts.read(file, None, None, 200)
    assert {item.language: item.prompt for item in found} == {tag: f"{tag} ask" for tag in header[2:-1]}
    assert all(isinstance(item, Question) and item.harmful and item.part == "harmful" for item in found)
    refusals = {item.language: item.refusals for item in found}
    assert refusals["sw"] == tuple(suites.read("sw").refusals)
    assert refusals["jv"] == tuple(suites.read("en").refusals)


@pytest.mark.parametrize(("name", "harmful"), [("Insult.csv", True), ("Mental_Health.csv", False)])
def test_xsafety_has_a_question_a_line_and_its_language_in_its_folder(name, harmful, tmp_path):
    file = rows(tmp_path / "fr" / name, ["Une question, avec une virgule"], ["Une autre"])
    found = in_order(layouts.read(file, "xsafety", None, 200))
    assert [(item.language, item.prompt, item.harmful) for item in found] == [
        ("fr", "Une autre", harmful), ("fr", "Une question, avec une virgule", harmful),
    ]  # fmt: skip
    assert layouts.read(file, "xsafety", "ar", 200)[0].language == "ar"
    assert len(layouts.read(file, "xsafety", None, 1)) == 1


def test_what_cannot_be_read_is_told_with_its_place(tmp_path):
    broken = lines(tmp_path / "bad.jsonl", bbq(0, "ambig", "neg", 1))
    broken.write_text(broken.read_text() + "{\n")
    unlabelled = {name: value for name, value in bbq(1, "ambig", "neg", 1).items() if name != "label"}
    bad = {
        tmp_path / "none.csv": "cannot read",
        broken: "bad.jsonl, line 2: not JSON",
        lines(tmp_path / "short.jsonl", bbq(0, "ambig", "neg", 1), unlabelled): "record 2: .* 'label' is missing",
        rows(tmp_path / "crows.csv", ["sent_more", "sent_less"], ["One."]): "record 1: .* a sentence is missing",
        lines(tmp_path / "other.jsonl", {"text": "x"}): "of no layout that is known",
        rows(tmp_path / "empty.csv"): "holds no records",
    }
    for file, told in bad.items():
        with pytest.raises(UsageError, match=told):
            layouts.read(file, None, None, 9)


def test_the_command_offers_every_layout():
    assert set(evaluating.LAYOUTS) == set(layouts.LAYOUTS)


def test_a_file_is_measured_and_stored_by_its_layout(trainer, database, tmp_path):
    file = lines(tmp_path / "Age.jsonl", *(bbq(place, "ambig", "neg", 1) for place in range(4)))
    code, told = trainer("evaluate", "--file", str(file))
    assert code == 0
    assert {(row["suite"], row["metric"]) for row in told} == {("bbq", "ambiguous/accuracy"), ("bbq", "ambiguous/bias")}
    assert database.scalar("SELECT count(*) FROM prompts") == 0
