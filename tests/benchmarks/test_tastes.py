"""The benchmark of tastes with made-up commands: its prompts, its figures and its verdicts, and that it goes on."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import rows, tastes
from benchmarks.likings import TASTES, word_count
from storage.database import open_database
from storage.exchange.importing import import_file
from storage.records import Source
from storage.workspace import Workspace


def test_no_prompt_has_two_uses_and_every_language_its_share():
    uses = tastes.prompts_by_use()
    everything = [one["prompt"] for part in uses.values() for one in part]
    assert len(everything) == len(set(everything)) == 32 + 12 + 32
    for use, each in (("rated", 8), ("gate", 3), ("test", 8)):
        assert Counter(one["language"] for one in uses[use]) == dict.fromkeys(tastes.LANGUAGES, each)
    assert {use: {one["split"] for one in part} for use, part in uses.items()} == {
        "rated": {"train"}, "gate": {"held-out"}, "test": {"held-out"},
    }  # fmt: skip


def test_no_two_answers_share_a_seed():
    seeds = [
        one["seed"] + place for one in tastes.seeded(tastes.prompts_by_use()["rated"], 4, 100) for place in range(4)
    ]
    assert sorted(seeds) == list(range(100, 228))


def answer(prompt: str, text: str, seed: int = 0, ended: bool = True) -> dict:
    return {
        "prompt": prompt,
        "language": "en",
        "text": text,
        "seed": seed,
        "finish_reason": "eos" if ended else "length",
    }


def test_the_gain_is_paired_by_prompt_with_its_interval():
    before = [answer("a", "1"), answer("b", "2"), answer("c", "3")]
    after = [answer("c", "5"), answer("a", "2"), answer("b", "4")]
    found = tastes.gains(before, after, lambda text, language: float(text))
    assert found["gain"]["mean"] == pytest.approx(5 / 3)
    assert found["gain"]["n"] == 3
    assert found["gain"]["low"] < 5 / 3 < found["gain"]["high"]


@pytest.mark.parametrize(
    ("state", "gain", "verdict"),
    [
        ("published", (-1.0, -1.5, -0.5), "published where the taste fell beyond its interval"),
        ("published", (-0.2, -0.6, 0.2), "published where the mean fell"),
        ("published", (0.2, -0.2, 0.6), "published, not told apart"),
        ("published", (0.6, 0.2, 1.0), "published, gained"),
        ("rejected", (-1.0, -1.5, -0.5), "rejected"),
        ("rejected", (0.6, 0.2, 1.0), "rejected, though it gained"),
    ],
)
def test_verdicts(state, gain, verdict):
    assert tastes.verdict(state, dict(zip(("mean", "low", "high"), gain, strict=True))) == verdict


def test_ratings_come_in_as_simulated_and_once(tmp_path):
    workspace = Workspace(tmp_path / "w").prepare()
    answers = [{**answer("Why?", f"Because {n}, you see.", n), "sample": str(key())} for n in range(3)]
    file = rows.write_lines(tmp_path / "ratings.jsonl", tastes.rated(answers, TASTES["speaking"], 0))
    with open_database(workspace) as database:
        assert import_file(database, str(file)).ratings == 3
        assert import_file(database, str(file)).ratings == 0
        assert {row["source"] for row in database.rows("SELECT source FROM ratings")} == {Source.SIMULATED}


def key():
    from uuid_utils import uuid7

    return uuid7()


class Commands:
    """`workbench` and `trainer` without any model: answers of v1 say more to the reader, and some end."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.interrupt_at = ""

    def command(self, room: str, *arguments: object):
        given = [str(one) for one in arguments]
        self._call(" ".join([given[0], *(["v1"] if "v1" in given else [])]))
        if given[0] == "queue":
            limit = int(given[given.index("--limit") + 1])
            return [
                {"kind": "pair" if place % 3 else "single", "samples": [str(key())], "texts": ["a b c d e f g h i j"],
                 "prompt": f"Why {place}?", "language": "en"}
                for place in range(limit)
            ]  # fmt: skip
        if given[0] != "generate" or "--from" not in given:
            return {"records": 1}
        lines = Path(given[given.index("--from") + 1]).read_text(encoding="utf-8").splitlines()
        asked = [rows.json.loads(line) for line in lines]
        count = int(given[given.index("--count") + 1])
        return [
            {**answer(one["prompt"], self._text(one["seed"] + place, "v1" in given), one["seed"] + place, place == 0),
             "language": one["language"], "sample": str(key())}
            for one in asked for place in range(count)
        ]  # fmt: skip

    def train(self, workspace: Path, arguments, control: str, earlier: int = 0):
        self._call(
            f"train {control}" if not earlier else f"train {control} again, {' '.join(map(str, arguments[-2:]))}"
        )
        return {"result": {"state": "published", "version": f"v{earlier + 1}", "kl": 2.5, "gates": []}}

    def _call(self, name: str) -> None:
        if name == self.interrupt_at:
            self.interrupt_at = ""
            raise KeyboardInterrupt
        self.calls.append(name)

    def _text(self, seed: int, trained: bool) -> str:
        words = random.Random(seed).choices(["the", "of", "sea", "boat", "runs", "over", "hill", "and"], k=12)
        return " ".join(words + ["you"] * 6 * trained)


@pytest.fixture
def commands(monkeypatch):
    made = Commands()
    monkeypatch.setattr(rows, "command", made.command)
    monkeypatch.setattr(rows, "train", made.train)
    return made


def start(tmp_path, monkeypatch, *more: str) -> int:
    places = ["--work", str(tmp_path / "work"), "--workspace", str(tmp_path / "base")]
    monkeypatch.setattr(
        sys, "argv", ["tastes", "--seeds", "0", "--tastes", "speaking", "--ratings", "real", *places, *more]
    )
    with pytest.raises(SystemExit) as ending:
        rows.interruptible(tastes.main)
    return ending.value.code


def test_a_row_says_what_the_rater_thinks_of_the_version(commands, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch, "--json") == 0
    (row,) = rows.json.loads(capsys.readouterr().out)["rows"]
    assert row["verdict"] == "published, gained"
    assert (row["before"]["words"], row["after"]["words"]) == (12, 18)
    assert (row["before"]["ended"], row["before"]["under_five"], row["kl"]) == (0.5, 0, 2.5)
    assert row["gain_matched"]["mean"] == pytest.approx(row["gain"]["mean"], abs=0.2)


def test_ratings_can_come_in_parts_each_of_what_the_run_before_left_to_rate(commands, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch, "--schedules", "64+32+32", "--json") == 0
    (row,) = rows.json.loads(capsys.readouterr().out)["rows"]
    assert (row["schedule"], row["version"], row["earlier_states"]) == ("64+32+32", "v3", ["published"] * 2)
    runs = [call for call in commands.calls if call.startswith("train")]
    assert runs == ["train real", "train real again, --ask 32", "train real again, --steps 6"]
    folder = tmp_path / "work" / "speaking/0/real/64+32+32"
    for name, count in (("ratings.jsonl", 64), ("ratings-1.jsonl", 32), ("ratings-2.jsonl", 32)):
        said = [rows.json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        assert len({one["sample_id"] for one in said}) == count
    languages = Counter(
        one["language"] for one in map(rows.json.loads, (folder / "rated.jsonl").open(encoding="utf-8"))
    )
    assert languages == dict.fromkeys(tastes.LANGUAGES, 4)


def test_parts_that_do_not_add_up_are_refused(commands, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch, "--schedules", "64+32") == 2
    assert "must make 128 ratings together" in capsys.readouterr().err


def test_an_interrupted_benchmark_goes_on_and_redoes_nothing(commands, tmp_path, monkeypatch, capsys):
    commands.interrupt_at = "generate v1"
    assert start(tmp_path, monkeypatch) == 130
    before = list(commands.calls)
    assert before[-2:] == ["train real", "generate"]
    assert start(tmp_path, monkeypatch) == 0
    # The first call only sees to the converted model; of the row, only the last answers were still to come.
    assert commands.calls[len(before) :] == ["generate", "generate v1"]
    assert start(tmp_path, monkeypatch) == 0
    assert commands.calls[len(before) + 2 :] == ["generate"]


def test_a_published_version_that_its_rater_likes_less_ends_it_with_an_error(commands, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASTES, "speaking", lambda text, language: 5.0 - 0.1 * word_count(text))
    assert start(tmp_path, monkeypatch) == 1
    out, err = capsys.readouterr()
    assert "published where the taste fell beyond its interval" in out
    assert "1 published where it fell beyond its interval" in err


def test_a_control_is_passed_on(commands, tmp_path, monkeypatch, capsys):
    assert start(tmp_path, monkeypatch, "--ratings", "shuffled") == 0
    assert "train shuffled" in commands.calls
