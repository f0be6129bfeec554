"""Where few prompts are there, each is measured by a model that never saw it, and all of them are learned from."""

from __future__ import annotations

import random
import string
from collections import Counter
from typing import ClassVar

import pytest
import torch
from msgspec.structs import replace
from tiny_model import CORPUS

from storage import jobs, metrics
from storage.errors import UsageError
from storage.records import Prompt
from trainer.algorithms import crossfit
from trainer.algorithms.crossfit import FEWEST_MEASURED, STAGE, cross_fitted, folds, learn_measured
from trainer.algorithms.supervised import PromptLoss, Row, SupervisedLearner, make_row
from trainer.evaluation.intervals import mean_interval
from trainer.examples import Response
from trainer.job import CancelledError, HeldJob
from trainer.supervised_config import SftConfig

CONFIG = SftConfig(rank=4, batch=8, learning_rate=2e-3)
LANGUAGES = ("en", "es", "zh", "sw")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def held(workspace, database, job) -> HeldJob:
    return HeldJob(workspace, database, job, quiet=True)


@pytest.fixture
def rows_of(backbone):
    """A function that makes a demonstration of each text, to prompts of their own in four languages."""

    def make(texts: list[str]) -> list[Row]:
        asked = [
            Prompt(f"p{n}", f"{CORPUS[n % len(CORPUS)]} {n}", LANGUAGES[n % len(LANGUAGES)], "")
            for n in range(len(texts))
        ]
        return [
            make_row(backbone, Response(prompt, text, None, None)) for prompt, text in zip(asked, texts, strict=True)
        ]

    return make


def habit(count: int) -> list[str]:
    """What all answers have in common can be told of prompts that were not learned from."""
    return ["Claro que sí, con mucho gusto."] * count


def noise(seed: int, count: int = 8) -> list[str]:
    """Random answers, each in letters of its own: nothing that one of them teaches is true of another."""
    letters = list(string.ascii_letters + string.digits)
    random.Random(seed).shuffle(letters)
    each = len(letters) // count
    return ["".join(random.Random(f"{seed} {n}").choices(letters[each * n :][:each], k=40)) for n in range(count)]


class Noted(SupervisedLearner):
    """A learner that notes what it and its like learned from and were measured on."""

    made: ClassVar[list[SupervisedLearner]] = []
    advanced: ClassVar[Counter[str]] = Counter()

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        Noted.made.append(self)

    def advance(self):
        Noted.advanced[self.stage] += 1
        return super().advance()


@pytest.fixture
def noted(monkeypatch) -> type[Noted]:
    monkeypatch.setattr(crossfit, "SupervisedLearner", Noted)
    monkeypatch.setattr(Noted, "made", [])
    monkeypatch.setattr(Noted, "advanced", Counter())
    return Noted


# --- what is measured ------------------------------------------------------------------------------------------------


def test_eight_demonstrations_of_a_habit_are_told_from_eight_of_noise(held, backbone, rows_of):
    """The gate asks for a lower end above 0; noise may get there by chance, one time in forty."""
    gentle = replace(CONFIG, learning_rate=2e-4)
    found = cross_fitted(held, backbone, rows_of(habit(8)), gentle, 1)
    gain = mean_interval([loss.gain for loss in found.values()])
    assert gain.n == 8
    assert gain.low > 0.2
    lows = []
    for seed in range(3):
        for fold in range(crossfit.FOLDS):
            (held.folder / "folds" / str(fold + 1) / "losses.json").unlink()
        found = cross_fitted(held, backbone, rows_of(noise(seed)), gentle, 1)
        lows.append(mean_interval([loss.gain for loss in found.values()]).low)
    assert not [low for low in lows if low > 0], lows


def test_no_prompt_is_measured_by_a_model_that_learned_from_it(held, backbone, rows_of, noted):
    rows = rows_of(habit(9))
    rows += [replace_group(row, rows[0].group) for row in rows_of(noise(1, 9))[4:6]]  # a prompt with three answers
    learner, gain = learn_measured(held, "demonstrations", backbone, rows, CONFIG, 1)
    *measuring, last = noted.made
    assert last is learner
    assert len(measuring) == 4
    measured = Counter(row.group for one in measuring for row in one.course.held_out)
    assert measured == Counter(row.group for row in rows), "each answer once"
    for one in measuring:
        kept, seen = ({row.group for row in part} for part in (one.course.held_out, one.course.learned))
        assert not kept & seen
        assert {row.group for batch in one.course.batches for row in batch} <= seen
        assert kept | seen == {row.group for row in rows}
        assert (one.config, one.step) == (CONFIG, one.steps), "the same settings, to the last step"
    assert (len(learner.course.learned), learner.course.held_out) == (len(rows), []), "the result learns from all"
    assert gain.n == 9


def replace_group(row: Row, group: str) -> Row:
    return Row(group, row.language, row.prompt, row.response)


def test_the_gain_is_how_far_the_loss_fell_by_prompt(held, backbone, rows_of):
    rows = rows_of(habit(8))
    losses = cross_fitted(held, backbone, rows, CONFIG, 1)
    prompts = folds(rows)[2]
    learner = SupervisedLearner(STAGE, backbone, rows, CONFIG, 1, kept=prompts)
    while learner.step < learner.steps:
        learner.advance()
    assert {prompt: losses[prompt] for prompt in prompts} == learner.held_out_losses()
    one = PromptLoss("sw", 4, 10.0, 6.0)
    assert one.gain == 1
    assert losses[prompts[0]].tokens == len(next(row.response for row in rows if row.group == prompts[0]))


def test_metrics_say_what_was_learned_from_and_what_was_measured(held, database, backbone, rows_of):
    learner, _ = learn_measured(held, "demonstrations", backbone, rows_of(habit(8)), CONFIG, 1)
    latest = {key: metric.value for key, metric in metrics.latest(database, held.job.id).items()}
    assert latest["data/examples", None] == latest["data/cross_fitted", None] == 8
    assert latest["data/held_out", None] == 0
    curve = metrics.series(database, held.job.id, "loss/held_out")
    assert [step for step, _ in curve] == [0, learner.steps]
    assert curve[1][1] < curve[0][1] - 1
    assert set(metrics.languages(database, held.job.id, "loss/held_out")) == set(LANGUAGES)
    assert [step for step, _ in metrics.series(database, held.job.id, "loss/train")] == list(
        range(1, learner.steps + 1)
    ), "of the folds no step is recorded"


@pytest.mark.parametrize(("prompts", "sizes"), [(2, [1, 1]), (3, [1, 1, 1]), (4, [1] * 4), (11, [3, 3, 3, 2])])
def test_folds_are_of_like_size_and_none_is_empty(prompts, sizes):
    found = folds([Row(f"p{n}", LANGUAGES[n % 4], (1,), (2,)) for n in range(prompts)])
    assert sorted(map(len, found), reverse=True) == sizes
    assert sorted(prompt for fold in found for prompt in fold) == sorted(f"p{n}" for n in range(prompts))


def test_each_fold_has_its_share_of_every_language():
    counts = {"en": 40, "sw": 8, "zh": 5, "ar": 2}
    rows = [Row(f"{lang} {n}", lang, (1,), (2,)) for lang, count in counts.items() for n in range(count)]
    for fold in folds(rows):
        found = Counter(prompt.split()[0] for prompt in fold)
        for language, count in counts.items():
            assert count // 4 <= found[language] <= -(-count // 4)
    assert folds(rows) == folds(rows[::-1])


# --- when ------------------------------------------------------------------------------------------------------------


def test_where_enough_prompts_are_kept_back_they_are_measured_once(held, database, backbone, rows_of, noted):
    config = replace(CONFIG, held_out=0.5, steps=2)
    learner, gain = learn_measured(held, "demonstrations", backbone, rows_of(habit(24)), config, 1)
    assert noted.made == [learner]
    assert gain.n == FEWEST_MEASURED == len(learner.course.held_out)
    assert not (held.folder / "folds").exists()


def test_answers_to_one_prompt_are_refused_where_nothing_else_would_judge(held, backbone, rows_of, noted):
    rows = [replace_group(row, "p0") for row in rows_of(noise(1))]
    with pytest.raises(UsageError, match="all 8 answers to learn from are to one prompt") as caught:
        learn_measured(held, "demonstrations", backbone, rows, CONFIG, 1)
    assert "another prompt" in caught.value.hint
    assert not noted.made, "before any work"
    learner, gain = learn_measured(held, "demonstrations", backbone, rows, replace(CONFIG, steps=1), 1, needed=False)
    assert gain is None
    assert len(learner.course.learned) == 8


# --- resume ----------------------------------------------------------------------------------------------------------


def test_a_resumed_job_does_not_learn_finished_folds_again(held, database, backbone, rows_of, noted, monkeypatch):
    rows = rows_of(habit(8))
    check, left = held.check, [8]

    def cancelled_in_the_second_fold() -> None:
        left[0] -= 1
        if not left[0]:
            raise CancelledError("told to stop", "")
        check()

    monkeypatch.setattr(held, "check", cancelled_in_the_second_fold)
    with pytest.raises(CancelledError):
        learn_measured(held, "demonstrations", backbone, rows, CONFIG, 1)
    steps = noted.made[0].steps
    assert steps < 8 <= 2 * steps
    assert noted.advanced == {STAGE: 7}
    monkeypatch.setattr(held, "check", check)
    _, resumed = learn_measured(held, "demonstrations", backbone, rows, CONFIG, 1)
    assert noted.advanced[STAGE] == 7 + 3 * steps, "the second fold begins anew, the first is remembered"
    losses = {}
    for prompts in folds(rows):
        learner = SupervisedLearner(STAGE, backbone, rows, CONFIG, 1, kept=prompts)
        while learner.step < learner.steps:
            learner.advance()
        losses |= learner.held_out_losses()
    assert resumed == mean_interval([loss.gain for loss in losses.values()])


def test_a_fold_that_was_not_finite_or_is_of_other_prompts_is_learned_again(held, backbone, rows_of, noted):
    rows = rows_of(habit(8))
    first = cross_fitted(held, backbone, rows, CONFIG, 1)
    (held.folder / "folds" / "1" / "losses.json").write_text('{"p0": {"language":"en","tokens":3,"before":null}}')
    (held.folder / "folds" / "2" / "losses.json").write_text("{}")
    before = noted.advanced[STAGE]
    assert cross_fitted(held, backbone, rows, CONFIG, 1) == first
    assert noted.advanced[STAGE] == before * 3 // 2
    assert jobs.get(held.database, held.job.id).stage == STAGE
