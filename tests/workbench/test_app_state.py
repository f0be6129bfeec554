"""The app's pure parts: header words, curves, the conversation, languages."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from storage.records import Job, JobState, Prompt, Sampling
from workbench.engine import protocol
from workbench.engine.machine import Restarting
from workbench.engine.process import EngineDied
from workbench.engine.status import EngineStatus, after, engine_words
from workbench.screens.prompt.conversation import Ask, Conversation
from workbench.screens.train.screen import log_tail, packed, ratings_words
from workbench.shell.bars import fitting
from workbench.training.curves import bar, points_of, seconds_left, sparkline
from workbench.training.outcome import outcome
from workbench.training.status import trainer_status, trainer_words

READY = protocol.Ready("smollm2", "v4", "cpu", "bfloat16", 1, 2048, 1.0)


def test_the_engine_is_told_by_shape_and_word():
    status = EngineStatus()
    seen = [engine_words(status)[0]]
    for event in (
        protocol.Progress("convert", "", 0.41), protocol.Progress("load", ""), READY,
        protocol.Text("r", 0, "x", 1), protocol.Done("r", 96, 2.0, 48.0), protocol.Swapped("v5", "v4", 0.1),
        EngineDied(-9, "", "engine.log"), Restarting(), EngineDied(-9, "", "engine.log", again=True),
    ):  # fmt: skip
        status = after(status, event)
        seen.append(engine_words(status)[0])
    assert seen == [
        "◌ engine starting", "◔ engine converting 41%", "◑ engine loading", "● SmolLM2 v4 · cpu bf16",
        "◉ SmolLM2 v4 · cpu bf16", "● SmolLM2 v4 · cpu bf16 · 48 tok/s", "● SmolLM2 v5 · cpu bf16 · 48 tok/s",
        "✕ engine down", "◌ engine starting", "◌ engine starting",
    ]  # fmt: skip


def test_a_failed_swap_leaves_the_engine_ready():
    status = after(after(EngineStatus(), READY), protocol.Failed("swap", "truncated"))
    assert (status.state, status.version) == ("ready", "v4")


def job(state: JobState, **more: object) -> Job:
    return Job("j", "run", {}, state, "2026-01-01T00:00:00.000000Z", stage="ppo", step=31, steps=80, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "alive", "words"),
    [
        (None, False, "△ trainer idle"),
        (job(JobState.DONE), False, "△ trainer idle"),
        (job(JobState.QUEUED), False, "◌ waiting ppo 31/80 · KL 3.1"),
        (job(JobState.RUNNING), True, "▲ ppo 31/80 · KL 3.1 · 6 min left"),
        (job(JobState.RUNNING, cancel_requested=True), True, "▽ stopping ppo 31/80 · KL 3.1"),
        (job(JobState.RUNNING), False, "✕ stalled ppo 31/80 · KL 3.1"),
        (job(JobState.PAUSED), False, "Ⅱ paused ppo 31/80 · KL 3.1"),
        (job(JobState.FAILED), False, "✕ failed ppo 31/80 · KL 3.1"),
    ],
)
def test_the_trainer_is_told_by_shape_and_word(found: Job | None, alive: bool, words: str):
    assert trainer_words(trainer_status(found, alive=alive, kl=3.1, seconds_left=360))[0] == words


def test_the_outcome_names_the_gate_that_failed():
    failed = {"version": "v3", "state": "rejected", "gates": [{"gate": "KL bound", "passed": False}]}
    passed = {"version": "v4", "state": "published", "gates": [], "reward_gain": 0.41, "kl": 3.1}
    assert outcome(job(JobState.DONE, result=failed)) == "v3 rejected: KL bound"
    assert outcome(job(JobState.DONE, result=passed)) == "v4 published, reward +0.41, KL 3.1"


def test_the_header_takes_the_longest_words_that_fit():
    choices = [["long words", "more words"], ["long", "more"], ["l"]]
    for room in range(1, 40):
        chosen = fitting(choices, room, 2)
        assert chosen == ["l"] or sum(map(cell_len, chosen)) + 2 <= room
    assert fitting(choices, 22, 2) == choices[0]


def test_thinning_keeps_spikes_the_end_and_the_limit():
    series = [(step, 1000.0 if step == 777 else step / 5000) for step in range(5000)]
    curve = points_of(series, 120)
    assert len(curve.steps) <= 120
    assert 1000.0 in curve.values
    assert curve.steps[-1] == 4999
    assert list(curve.steps) == sorted(set(curve.steps))


def test_a_curve_holds_finite_points_only():
    curve = points_of([(1, 1.0), (2, None), (3, float("inf")), (4, float("nan")), (5, -2.0)], 100)
    assert curve.steps == (1, 5)
    assert curve.best == (1.0, 1)
    assert not points_of([(1, None)], 10)


def test_sparklines_and_bars():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0], 8) == "▄▄"
    assert sparkline([], 8) == ""
    assert [bar(part, 10, 5) for part in (0, 1, 5, 10)] == ["", "▇", "▇▇", "▇▇▇▇▇"]


def test_time_left_follows_the_pace():
    moments = [(n, f"2026-01-01T00:00:{n:02d}.000000Z") for n in range(10, 21)]
    assert seconds_left(moments, 20, 80) == pytest.approx(60)
    assert seconds_left(moments[:1], 20, 80) is None
    assert seconds_left(moments, 20, 0) is None


def test_figures_are_packed_without_breaking_one():
    from textual.content import Content

    lines = packed([Content("aaa 1"), Content("bbb 2"), Content("ccc 3")], 14).plain.split("\n")
    assert lines == ["aaa 1   bbb 2", "ccc 3"]


def test_the_log_shows_its_last_lines_cleaned():
    assert log_tail("one\ntwo \x1b[2J\n 10%\r 90%\n", 2, 40).plain == "two ␛[2J\n90%"


def test_ratings_are_counted_in_words():
    assert ratings_words([]) == "no ratings yet"
    assert ratings_words([], 3) == "no ratings by people yet, 3 by AI"
    assert ratings_words([("fr", "score", 1)]) == "1 rating (fr 1; 1 score)"
    assert ratings_words([("fr", "score", 3), ("es", "pair", 2)]) == "5 ratings (fr 3, es 2; 3 score, 2 pair)"


def ask(name: str) -> Ask:
    prompt = Prompt(name, name, "en", "2026-01-01T00:00:00.000000Z")
    return Ask(prompt, protocol.Generate(name, name, count=2, sampling=Sampling()))


def test_prompts_are_answered_in_turn_and_a_dead_engine_loses_none():
    talk = Conversation()
    for name in ("one", "two"):
        talk.ask(ask(name))
    assert talk.next_request() == ask("one").generate
    assert talk.next_request() is None
    assert talk.hear(protocol.Text("one", 1, "half", 2))
    assert not talk.hear(protocol.Text("other", 0, "stray", 1))
    assert talk.engine_ended() is None
    assert [waiting.ask.prompt.id for waiting in talk.waiting] == ["one", "two"]
    assert talk.next_request() == ask("one").generate
    assert talk.current is not None
    assert talk.current.texts == ["", ""]
    assert talk.hear(protocol.Done("one", 2, 1.0, 2.0))
    assert talk.next_request() == ask("two").generate
