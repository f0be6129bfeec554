"""Versions: what exists, which one answers, publishing and going back."""

from __future__ import annotations

import pytest
from driving import SIZES, opened, ready, until, visible, with_engine
from fake_talk import FakeEngine

from storage import conversations, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.records import Choice, Version
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.screens.versions.detail import detail
from workbench.shell.app import WorkbenchApp


@pytest.fixture
def v1(workspace: Workspace, database: Database) -> Version:
    """A candidate with a real file that passed one gate and failed another."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    file = workspace.versions / "v1.safetensors"
    file.write_bytes(b"weights")
    made = versions.add_candidate(
        database, base=base, parent="v0", file="versions/v1.safetensors", sha256=versions.sha256_of(file), step=40,
        metrics={"reward_gain": 0.41, "kl": 3.1},
    )  # fmt: skip
    gates = [
        {"gate": "reward on held-out prompts", "passed": True, "value": 0.41, "bound": 0.0, "detail": "[/gain]"},
        {"gate": "KL to the base", "passed": False, "value": 17.0, "bound": 15.0, "detail": ""},
    ]
    versions.record_gates(database, "v1", gates, {})
    return made


def swaps(fake: FakeEngine) -> list[str]:
    """The versions that the engine was asked to serve."""
    return [heard["version"] for heard in fake.heard("swap")]


@pytest.mark.parametrize("size", SIZES)
async def test_the_list_names_state_and_gates(workspace: Workspace, v1: Version, size: tuple[int, int]):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        ready(app)
        await pilot.press("f6")
        await until(pilot, lambda: "candidate" in visible(app))
        shown = visible(app)
        assert "loaded v0" in shown
        if size[0] >= 80:
            assert "✕ 1 of 2" in shown
            assert "✓ passed  reward on held-out prompts" in shown
            assert "✕ failed  KL to the base" in shown
            assert "[/gain]" in shown


async def test_publishing_asks_first_and_the_engine_follows(
    workspace: Workspace, database: Database, v1: Version, fake: FakeEngine
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await with_engine(pilot, fake)
        await pilot.press("f6")
        await until(pilot, lambda: "candidate" in visible(app))
        await pilot.press("p")
        await until(pilot, lambda: "did not pass: KL to the base" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert versions.served(database).name == "v0"
        await pilot.press("p")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("enter")
        await until(pilot, lambda: swaps(fake) == ["v1"])
        assert versions.served(database).name == "v1"
        await until(pilot, lambda: "v0 → v1  reward +0.41  KL 3.1  proof: exact" in visible(app))
        await until(pilot, lambda: "loaded v1 (exact)" in visible(app))
        await until(pilot, lambda: "SmolLM2 v1" in visible(app))
        await pilot.press("b")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("enter")
        await until(pilot, lambda: swaps(fake) == ["v1", "v0"])
        assert versions.get(database, "v1").state == "rolled-back"


async def test_another_process_publishes_and_the_engine_swaps(
    workspace: Workspace, database: Database, v1: Version, fake: FakeEngine
):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await with_engine(pilot, fake)
        versions.publish(database, workspace, "v1")
        await until(pilot, lambda: app.engine.version == "v1")
        assert swaps(fake) == ["v1"]


async def test_a_pinned_version_is_not_left(workspace: Workspace, database: Database, v1: Version, fake: FakeEngine):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await with_engine(pilot, fake)
        await pilot.press("f6")
        await until(pilot, lambda: "candidate" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: "v1 pinned" in visible(app))
        versions.publish(database, workspace, "v0")
        assert swaps(fake) == ["v1"]
        await pilot.press("f8")  # a new engine serves v0, but v1 was asked for by name
        await until(pilot, lambda: len(fake.heard("start")) == 2 and "v1 pinned" in visible(app))
        assert swaps(fake) == ["v1", "v1"]
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:  # and so is it when the app starts again
        await with_engine(pilot, fake)
        await until(pilot, lambda: swaps(fake) == ["v1", "v1", "v1"] and "v1 pinned" in visible(app))
        await pilot.press("f6", "f")
        await until(pilot, lambda: swaps(fake) == ["v1", "v1", "v1", "v0"])
        assert app.session.pinned == ""


async def test_a_damaged_file_is_not_published(workspace: Workspace, database: Database, v1: Version):
    (workspace.versions / "v1.safetensors").write_bytes(b"other")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        await pilot.press("f6")
        await until(pilot, lambda: "candidate" in visible(app))
        await pilot.press("p")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("enter")
        await until(pilot, lambda: "its digest differs" in visible(app))
        assert versions.served(database).name == "v0"


async def test_a_failed_swap_is_told_and_the_version_stays(workspace: Workspace, v1: Version):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot)
        ready(app)
        app.hear(protocol.Failed("swap", "v1: the file is truncated"))
        await until(pilot, lambda: "the file is truncated" in visible(app))
        await until(pilot, lambda: "SmolLM2 v0" in visible(app))


def test_a_gate_by_language_is_told_to_its_last_language(database: Database, v1: Version):
    told = ", ".join(
        f"{one} -0.{n:02} [-1.20, +1.16] (n 4)" for n, one in enumerate(["sw", "yo", "am", "ha", "zu"] * 8)
    )
    versions.record_gates(database, "v1", [{"gate": "languages", "passed": False, "detail": f"{told}, xx failed"}], {})
    assert "xx failed" in detail(versions.get(database, "v1")).plain


def compared(database: Database, old: str, new: str, choices: list[Choice]) -> None:
    """Blind pairs of answers to prompts of their own; A is the older one's."""
    start = database.scalar("SELECT count(*) FROM prompts")
    for number, choice in enumerate(choices, start):
        prompt = conversations.add(database, f"Barafu {number}?", language="sw")
        pair = [samples.new(prompt.id, f"{name} {number}", version=name, finish_reason="eos") for name in (old, new)]
        samples.add(database, pair)
        log.append(database, log.pair(pair[0].id, pair[1].id, choice, "rater", blind=True, shown_order="ba"))


async def test_what_its_rater_prefers_leads_and_one_key_goes_back_to_what_was_served_before(
    workspace: Workspace, database: Database, v1: Version
):
    base = versions.base_of(database, v1)
    versions.add_candidate(database, base=base, parent="v1", file=v1.file or "", sha256=v1.sha256 or "")
    versions.serve(database, "v2")  # v1, its parent, was never served
    compared(database, "v1", "v2", [Choice.B] * 30)
    compared(database, "v0", "v2", [Choice.A, Choice.B] * 6)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f6")
        await until(pilot, lambda: "? not decided  won 50% [" in visible(app))
        await until(pilot, lambda: "of 12 blind pairs against v0" in visible(app))
        await until(pilot, lambda: "▲ STOP: better  won 100% [" in visible(app))
        assert "goes back" not in visible(app), "it did not lose"
        compared(database, "v0", "v2", [Choice.A] * 60)
        await until(pilot, lambda: "▼ b goes back to v0: v2 lost to it, 8% [" in visible(app))
        shown = visible(app)
        assert "▼ STOP: worse  won 8% [" in shown
        assert "of 72 blind pairs against v0" in shown
        assert "sw ▼ 8% [" in shown
        await pilot.press("b")
        await until(pilot, lambda: "New answers will come from v0 again" in visible(app))
        await until(pilot, lambda: "It lost: 8% [" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: versions.served(database).name == "v0" and "goes back to" not in visible(app))
        assert versions.get(database, "v2").state == "rolled-back"


async def test_why_shows_the_ratings_behind_a_version(workspace: Workspace, v1: Version, database: Database):
    """The real command, in a process of its own; no reward model was fitted, so that it loads none."""
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        ready(app)
        await pilot.press("f6")
        await until(pilot, lambda: "candidate" in visible(app))
        await pilot.press("w")
        await until(pilot, lambda: "0 ratings behind it" in visible(app))
        await until(pilot, lambda: "v1 ← v0" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
