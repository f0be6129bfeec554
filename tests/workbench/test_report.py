"""`workbench report`: one page that a colleague can open, whatever stands in the texts."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from storage import clock, conversations, evaluations, jobs, learned_from, metrics, samples, versions
from storage.database import open_database
from storage.feedback import log
from storage.records import Evaluation, Split
from storage.workspace import Workspace
from trainer import model_card
from trainer.policy.models.folder import ModelFolder
from workbench.cli import cli, run_command

HOSTILE = '</blockquote><script>alert("x")</script><img src=x onerror=alert(1)> \x1b]52;c;AAAA\x07 \u202egnp'


class Page(HTMLParser):
    """The tags of a page, the attributes that name something outside it or run something, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.bad: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "path", "polyline", "circle"):
            self.open.append(tag)
        self.bad += [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "polyline", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def made(workspace: Workspace) -> Workspace:
    """v1 with everything that a page tells, a control v2 beside it, and v3, of which nothing is known."""
    with open_database(workspace) as database:
        base = versions.ensure_base(database, "smollm2", "d" * 64)
        rated = []
        for number in range(24):
            prompt = conversations.add(
                database, f"{number}? {HOSTILE}", language=("sw", "en")[number % 2],
                split=Split.HELD_OUT if number % 6 == 5 else Split.TRAIN,
            )  # fmt: skip
            answer = samples.new(prompt.id, f"{number} {HOSTILE}")
            samples.add(database, [answer])
            if prompt.split is Split.TRAIN:
                given = log.score(answer.id, 1 + number % 5, f"Wanjirũ {HOSTILE}" if number % 3 else "Kofi")
                rated.append(log.append(database, given).id)
                if number == 0:  # what no person said is behind it as well
                    rated.append(log.append(database, log.score(answer.id, 2, "a program", source="simulated")).id)
        answers = [
            {"prompt": HOSTILE, "language": HOSTILE, "before": HOSTILE, "after": HOSTILE, "reward_before": -0.25}
        ]
        for control in ("none", "shuffled"):
            queued = jobs.enqueue(database, "ppo", {"seed": 3, "control": control, "model": "/home/someone/model"})
            job = jobs.claim(database, "a test", job_id=queued.id)
            assert job is not None
            jobs.link_ratings(database, job, rated)
            metrics.record(database, job.id, 1, {("objective/kl", None): 0.5, ("objective/kl", "sw"): 9.0})
            metrics.record(database, job.id, 2, {("objective/kl", None): float("nan")})
            metrics.record(database, job.id, 3, {("objective/kl", None): 1.5})
            made = versions.add_candidate(
                database, base=base, parent="v0", file="versions/x/adapter_model.safetensors", sha256="a" * 64,
                job_id=job.id, step=3,
            )  # fmt: skip
            versions.record_gates(
                database, made.name,
                [{"gate": "reward", "passed": control == "none", "detail": HOSTILE}],
                {"reward_gain": 0.41, "reward_gain_interval": [0.1, 0.7], "held_out_prompts": 12, "answers": answers,
                 "reward_gain_by_language": {"sw": {"mean": 0.5, "low": 0.1, "high": 0.9, "n": 6}}}
                | ({"control": control} if control != "none" else {}),
            )  # fmt: skip
        versions.add_candidate(
            database, base=base, parent="v0", file="versions/y/adapter_model.safetensors", sha256="b"
        )
        evaluations.add(database, [
            Evaluation(clock.new_id(), name, "norms", "accuracy" + gain, value, 24, clock.now(), None, value - 0.1,
                       value + 0.1, None, against)
            for name, gain, value, against in
            (("v1", "", 0.75, None), ("v0", "", 0.5, None), ("v1", "/gain", 0.25, "v0"))
        ])  # fmt: skip
        new, old = (samples.new(prompt.id, said, version=version) for said, version in (("a", "v1"), ("b", "v0")))
        samples.add(database, [new, old])
        log.append(database, log.pair(new.id, old.id, "a", "Kofi", blind=True, shown_order="ab"))
    return workspace


def written(workspace: Workspace, file: Path, *arguments: str) -> str:
    place = ["--workspace", str(workspace.root)]
    assert run_command(cli, ["report", *arguments, str(file), "--overwrite", *place]) == 0
    return file.read_text(encoding="utf-8")


def test_the_page_tells_what_is_known_and_nothing_runs_in_it(made: Workspace, tmp_path: Path) -> None:
    text = written(made, tmp_path / "v1.html", "v1")
    page = Page(text)
    assert page.open == []
    assert not {"script", "img", "iframe", "link", "base"} & {*page.tags}
    assert page.bad == []
    assert "default-src 'none'" in text
    assert not set("\x1b\x07\u202e") & set(text)
    assert (
        page.text.count('alert("x")') == 5
    )  # the gate's words, and the language and texts of the answers, as they are
    for told in ("21 ratings are behind it", "0.41 [0.1, 0.7]", "+0.50 [0.1, 0.9]", "against", "100%", "undecided",
                 "Fewer than 20 ratings of people are of: en (8), sw (12)",
                 "Only 12 held-out prompts", "reward -0.25", "shuffled", "0.75 [0.65, 0.85]",
                 "+0.25 [+0.15, +0.35]", "gained over v0", "0 of 1", "passed"):  # fmt: skip
        assert told in page.text, told
    assert text.count("<svg") == 1
    assert text.count("<polyline") == 2, "a figure that was not finite leaves a gap"
    assert "someone" not in text
    assert "Wanjir" not in text
    assert "rater 2" in page.text


def test_the_newest_figures_of_suites_are_told_beside_the_parent_and_by_language(
    made: Workspace, tmp_path: Path
) -> None:
    def figure(value: float, language: str | None, against: str | None = None, version: str = "v1") -> Evaluation:
        metric = "ambiguous/accuracy" + ("/gain" if against else "")
        return Evaluation(clock.new_id(), version, f"bias {HOSTILE}", metric, value, 12, "", language, value - 0.1,
                          value + 0.1, against=against)  # fmt: skip

    with open_database(made) as database:
        evaluations.add(database, [figure(0.99, None), figure(0.98, "sw")])
        evaluations.add(database, [figure(0.61, None), figure(0.52, "sw"), figure(0.43, "en")])
        evaluations.add(database, [figure(0.4, None, None, "v0"), figure(0.21, None, "v0")])
        evaluations.add(database, [figure(-0.32, "sw", "v0"), figure(0.05, "en", "v0")])
    page = Page(written(made, tmp_path / "v1.html", "v1"))
    assert page.open == []
    assert not {"script", "img"} & {*page.tags}
    for told in ("0.61 [0.51, 0.71]", "0.40 [0.30, 0.50]", "▲ +0.21 [+0.11, +0.31]", "ambiguous, accuracy",
                 "▼ -0.32 [-0.42, -0.22]", "0.52", "+0.05 [-0.05, +0.15]"):  # fmt: skip
        assert told in page.text, told
    assert "0.99" not in page.text
    assert "0.98" not in page.text
    assert "measured on no suite" in Page(written(made, tmp_path / "v3.html", "v3")).text


def test_names_are_told_where_they_are_asked_for(made: Workspace, tmp_path: Path) -> None:
    assert "Wanjirũ" in written(made, tmp_path / "v1.html", "v1", "--names")


def test_what_is_not_known_is_said(made: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Page(written(made, tmp_path / "v3.html", "v3")).text
    for told in ("No gate has measured it", "Too few blind pairs", "No job of this workspace made it", "0 ratings"):
        assert told in text, told
    assert "It is a control, of shuffled ratings" in Page(written(made, tmp_path / "v2.html", "v2")).text
    place = ["--workspace", str(made.root)]
    assert run_command(cli, ["report", "v1", str(tmp_path / "v2.html"), *place]) == 2
    assert "exists already" in capsys.readouterr().err
    assert run_command(cli, ["report", "v1", "-", *place]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert run_command(cli, ["report", "v1", "-", "--json", *place]) == 2
    assert capsys.readouterr().out == "", "a page is no JSON document"


def test_what_was_imitated_is_told_beside_the_ratings(made: Workspace, tmp_path: Path) -> None:
    with open_database(made) as database:
        base = versions.get(database, "v0")
        for kind, counts in (("sft", {"sw": 3, "en": 1}), ("run", {"sw": 25, "en": 15}), ("dpo", {"sw": 900})):
            queued = jobs.enqueue(database, kind, {})
            job = jobs.claim(database, "a test", job_id=queued.id)
            assert job is not None
            figures = {("data/examples", language): float(count) for language, count in counts.items()}
            metrics.record(database, job.id, 1, figures | {("data/examples", None): float(sum(counts.values()))})
            parent = versions.every(database)[0].name if kind != "sft" else "v0"
            file = f"versions/{kind}/adapter_model.safetensors"
            last = versions.add_candidate(database, base=base, parent=parent, file=file, sha256="c", job_id=job.id)
        assert learned_from.imitated(database, learned_from.jobs_of_lineage(database, last)) == {"sw": 25, "en": 15}
        card = model_card.card(database, last, ModelFolder("tiny", tmp_path, "d"), "adapter")
    assert "trained on 40 demonstrations and edits (sw 25, en 15) with" in card
    assert "Imitated were 40 demonstrations and edits (sw 25, en 15)." in written(made, tmp_path / "x.html", last.name)
