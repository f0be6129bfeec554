"""A bad version, planted on purpose on the bundled model: the gate rejects it, and so do raters if it is forced in."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import click
import pytest
from driving import opened, until, visible

from storage import versions
from storage.database import open_database
from storage.feedback import log, queue
from storage.feedback.mix import Mix
from storage.feedback.queue import ReviewItem
from storage.records import Choice, Rating
from storage.workspace import Workspace
from trainer.cli import cli as trainer
from workbench.cli import cli as workbench
from workbench.cli import run_command
from workbench.shell.app import WorkbenchApp

PLANTED = ("blorp", "zix", "nabu", "kreel", "vonti", "quaz")
FACTS = {
    "Why does bread rise?": "Yeast makes gas, and the dough holds it.",
    "Why is the sky blue?": "The air scatters blue light more than red.",
    "What is rain?": "Water that falls from the clouds.",
    "What is a map for?": "It shows where things are.",
    "Why do we sleep?": "So that body and brain can rest.",
    "How do fish breathe?": "They take oxygen from the water.",
    "Why do cats purr?": "They do so when they are calm.",
    "How is paper made?": "Wood is ground, pressed and dried.",
    "Why does iron rust?": "It joins with oxygen when it is wet.",
    "How do bees help us?": "They carry pollen to the flowers.",
    "What is snow?": "Ice that falls as flakes.",
    "Why do we laugh?": "We laugh when something is funny.",
    "How do seeds grow?": "A root and a leaf come out.",
    "What is a desert?": "A place with almost no rain.",
    "How do you make tea?": "Pour hot water over the leaves.",
    "What is the moon?": "A ball of rock around the earth.",
    "Why do stars shine?": "They are hot, and give light.",
    "What is a shadow?": "The dark where light is stopped.",
    "What is a river?": "Water that flows to the sea.",
    "Why do dogs bark?": "They warn, or want something.",
    "What is a year?": "The time around the sun.",
    "How does a wheel help?": "It rolls under a load.",
    "What is salt made of?": "Of sodium and chlorine.",
    "How does soap work?": "It holds fat and water together.",
}
HELD_OUT = ("What keeps a boat afloat?", "How do birds stay warm?", "What makes a good friend?",
            "How does a candle burn?", "What is a book for?", "Why do leaves turn red?")  # fmt: skip


def planted(seed: int) -> str:
    return " ".join(random.Random(seed).choices(PLANTED, k=5))


def feedback() -> list[dict[str, Any]]:
    """Good answers with high scores, planted ones with low scores; and planted ones once more, as demonstrations."""
    records: list[dict[str, Any]] = [{"prompt": one, "language": "en", "split": "held-out"} for one in HELD_OUT]
    for place, (prompt, good) in enumerate(FACTS.items()):
        named = {"prompt": prompt, "language": "en", "split": "train"}
        records += [
            {**named, "response": good, "score": 5}, {**named, "response": planted(place), "score": 1},
            {**named, "completion": planted(100 + place)},
        ]  # fmt: skip
    return records


def prefers_english(item: ReviewItem) -> Rating:
    """What a simulated rater says of a blind pair: the answer with fewer planted words is the better one."""
    bad = [sum(word in sample.text for word in PLANTED) for sample in item.samples]
    choice = Choice.TIE if bad[0] == bad[1] else Choice.A if bad[0] < bad[1] else Choice.B
    a, b = item.keys
    return log.pair(a, b, choice, "simulated", blind=True, shown_order=item.shown_order, slice=item.slice,
                    source="simulated")  # fmt: skip


@pytest.mark.model
@pytest.mark.timeout(900)  # a minute of a quiet processor, and a busy one has much else
def test_a_planted_bad_version_is_rejected_by_the_gate_and_by_blind_pairs(
    bundled_model_workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
):
    workspace = bundled_model_workspace

    def run(command: click.Command, *arguments: object, code: int = 0) -> Any:
        said = [*map(str, arguments), "--workspace", str(workspace.root), "--json"]
        assert run_command(command, said) == code
        out, err = capsys.readouterr()
        return json.loads(out) if code == 0 else out + err

    def lines(name: str, records: list[dict[str, Any]]) -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return file

    assert run(workbench, "import", lines("feedback.jsonl", feedback()))["stored"] == 6 + 3 * 24
    learned = run(
        trainer, "sft", "--model", "smollm2", "--steps", 6, "--batch", 6, "--learning-rate", 3e-3, "--rank", 8,
        "--held-out", 0.5, "--ask", 0, "--gate-answers", 1, "--gate-max-new-tokens", 10, "--threads", 1, "--seed", 1,
    )["result"]  # fmt: skip
    assert (learned["version"], learned["state"]) == ("v1", "rejected")
    failed = {gate["gate"]: gate for gate in learned["gates"] if not gate["passed"]}
    assert failed["reward"]["value"] < -1
    assert "must not be below 0" in failed["reward"]["detail"]
    assert {"languages", "KL bound"} <= failed.keys()

    run(workbench, "publish", "v1", "--reason", "forced in")
    asked = lines("asked.jsonl", [{"prompt": prompt, "language": "en"} for prompt in FACTS])
    for version in ("v0", "v1"):
        answers = run(workbench, "generate", "--model", "smollm2", "--from", asked, "--version", version,
                      "--max-new-tokens", 8, "--seed", 5, "--temperature", 0.7)  # fmt: skip
        assert len(answers) == len(FACTS)
    with open_database(workspace) as database:
        while items := queue.next_items(database, "simulated", 1, shares=Mix.of({"versions": 1})):
            log.append(database, prefers_english(items[0]))
        newest = run(workbench, "versions")[0]
        (rate,) = (one for one in newest["win_rates"] if one["part"] == "all")
        assert (rate["version"], rate["against"], rate["source"]) == ("v1", "v0", "simulated")
        assert (rate["verdict"], rate["n"]) == ("worse", len(FACTS))
        assert rate["rate"] < 0.1
        refused = run(workbench, "publish", "v1", "--if-won", 0.5, code=2)
        assert "v1 is worse: won" in refused

    asyncio.run(goes_back(workspace))
    assert run(workbench, "versions")[0]["state"] == "rolled-back"


async def goes_back(workspace: Workspace) -> None:
    """As a person does on Versions, where it is offered."""
    app = WorkbenchApp(workspace, start_engine=False)
    with open_database(workspace) as database:
        async with app.run_test(size=(120, 40)) as pilot:
            await opened(pilot)
            await pilot.press("f6")
            await until(pilot, lambda: "▼ b goes back to v0: v1 lost to it" in visible(app))
            assert "▼ STOP: worse" in visible(app)
            await pilot.press("b")
            await until(pilot, lambda: "New answers will come from v0 again" in visible(app))
            await pilot.press("enter")
            await until(pilot, lambda: versions.served(database).name == "v0")
