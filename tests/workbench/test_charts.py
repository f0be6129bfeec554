"""What is shown of each way of learning: its curves, the words beside them, and the warning of the watch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from driving import served_base, until, visible

from storage import jobs, metrics
from storage.database import Database
from storage.records import Job, Prompt
from storage.workspace import Workspace
from trainer.algorithms.hindsight import hindsight
from trainer.algorithms.ilql import Ilql
from trainer.algorithms.ppo import Ppo
from trainer.algorithms.sft import sft
from trainer.config import RewardConfig
from trainer.demonstrations import Demonstrations
from trainer.evaluation.intervals import Interval
from trainer.evaluation.watch import WatchReport
from trainer.examples import Examples, Response, Scored
from trainer.methods import METHODS
from trainer.outcomes import Outcome
from trainer.policy.backbone import Backbone
from trainer.policy.models import resolve
from trainer.reward.fitting import RewardFit
from trainer.supervised_config import HindsightConfig, SftConfig
from workbench.shell.app import WorkbenchApp
from workbench.training.boards import (
    BOARDS,
    IMITATION,
    JUDGE,
    POLICY,
    Q_LEARNING,
    REWARD,
    agreement_words,
    board_of,
    chart_words,
    figures,
    with_parts,
)
from workbench.training.boards import warning as warned
from workbench.training.curves import Curve
from workbench.training.outcome import outcome
from workbench.widgets.plots import CurvePlot

RISING = {("objective/scores", None): Curve((1, 2), (0.1, 0.4))}
FALLING = {("objective/scores", None): Curve((1, 2), (0.4, 0.1))}


def learning(database: Database, kind: str, stage: str, values: dict[str, float], steps: int = 5) -> Job:
    """A job under way whose figures fall by a tenth a step, overall and in two languages."""
    served_base(database)
    queued = jobs.enqueue(database, kind, {"seed": 0}, steps=40)
    job = jobs.claim(database, "test", job_id=queued.id, lease=600)
    assert job is not None
    for step in range(1, steps + 1):
        spoken = {
            (name, language): value - step / 10 for name, value in values.items() for language in (None, "hi", "sw")
        }
        counts = {("data/examples", None): 48.0, ("data/held_out", None): 6.0} if step == 1 else {}
        metrics.record(database, job.id, step, spoken | counts)
    jobs.progress(database, job, stage=stage, step=steps, steps=40)
    return jobs.get(database, job.id)


def test_each_stage_of_each_learner_has_its_board(tiny_model: Path):
    backbone = Backbone(resolve(str(tiny_model), Workspace(tiny_model)), torch.device("cpu"), torch.float32, 1 / 3)
    asked = [Prompt(f"p{n}", f"Nini ni {n}?", "sw", "2025-01-01T00:00:00Z") for n in range(12)]
    answers = [Response(prompt, f"jibu {n}", None, None) for n, prompt in enumerate(asked)]
    imitated = sft(backbone, Demonstrations(answers, [], []), SftConfig(steps=1), 0)
    received = [Outcome(answer, float(n), 1) for n, answer in enumerate(answers)]
    relabelled = hindsight(backbone, received, [], HindsightConfig(steps=1, minimum=2), 0)
    assert BOARDS[imitated.stage] is BOARDS[relabelled.stage] is IMITATION
    assert BOARDS[Ppo.stage] is POLICY
    assert BOARDS[Ilql.stage] is Q_LEARNING
    rated = Examples(scores=[Scored(answer, n % 3 - 1.0, "amina") for n, answer in enumerate(answers)])
    fits = [RewardFit(backbone, rated, RewardConfig(rank=4), 0, role=role) for role in ("reward", "judge")]
    assert [BOARDS[fit.stage] for fit in fits] == [REWARD, JUDGE]
    for fit in fits:
        shown = {chart.metric for chart in BOARDS[fit.stage].charts}
        assert shown <= {name for name, _ in fit.advance().figures}, "its curves are drawn"
    kinds = {"sft": IMITATION, "hindsight": IMITATION, "ilql": Q_LEARNING, "reward": REWARD}
    for kind, method in METHODS.items():
        for stage in ("", "gate", "publish"):
            if isinstance(method.board, str):
                assert board_of(kind, stage) is kinds.get(kind, POLICY)
            else:
                drawn = [chart.metric for chart in board_of(kind, stage).charts]
                assert drawn == [curve.metric for curve in method.board]
                assert len(drawn) in (2, 4)


@pytest.mark.parametrize(
    ("kind", "stage", "values", "titles", "words"),
    [
        ("sft", "demonstrations", {"loss/train": 3.0, "loss/held_out": 3.2, "policy/grad_norm": 1.5},
         ["loss, nats/token", "held-out loss, nats/token", "gradient norm", "update, seconds"],
         ["now 1.00", "now 2.50  best 2.50 at 5  n 48", "now 2.70"]),
        ("hindsight", "hindsight", {"loss/train": 2.0, "loss/held_out": 2.2},
         ["loss, nats/token", "held-out loss, nats/token", "gradient norm", "update, seconds"], ["now 1.50", "n 6"]),
        ("ilql", "q-learning",
         {"loss/q": 1.0, "loss/held_out_q": 2.0, "loss/value": 0.9, "q/held_out_correlation": 3.0},
         ["Q loss, squared deviations", "held-out Q loss, squared", "value loss", "correlation with kept-back ratings"],
         ["now 0.500", "now 0.400", "now +2.50"]),
        ("run", "judge", {"loss/judge": 0.9}, ["judge's loss, mean over ratings", "gradient norm"],
         ["now 0.400  best 0.400 at 5"]),
        ("reward", "reward model", {"loss/reward": 0.9}, ["loss, mean over ratings", "gradient norm"],
         ["now 0.400  best 0.400 at 5"]),
    ],
)  # fmt: skip
async def test_a_learner_without_reward_and_kl_shows_its_own_curves(
    workspace: Workspace,
    database: Database,
    kind: str,
    stage: str,
    values: dict[str, float],
    titles: list[str],
    words: list[str],
):
    learning(database, kind, stage, values)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.desk is not None)
        await pilot.press("f3")
        await until(pilot, lambda: "5/40" in visible(app) and titles[0] in visible(app))
        await until(pilot, lambda: all(one in visible(app) for one in (*titles, *words)))
        shown = visible(app)
        assert f"{stage}" in shown
        assert "KL to reference" not in shown
        assert len([plot for plot in app.screen.query(CurvePlot) if plot.display]) == len(titles)
        if kind not in ("reward", "run"):
            assert "sw" in shown


def test_words_of_policy_optimisation_say_of_how_many_answers_they_are():
    reward, kl = POLICY.charts[:2]
    curve = Curve((1, 2, 3), (0.1, 0.5, 0.2))
    config = {"ppo": {"batch": 16}}
    assert chart_words(reward, curve, {}, config, None) == "now +0.20  best +0.50 at 2  n 16"
    coefficient = {("objective/kl_coef", None): 0.11}
    assert chart_words(kl, curve, coefficient, config, 6.0) == "now 0.2  target 6  beta 0.11  n 16"
    assert chart_words(reward, Curve(), {}, config, None) == "no figures yet"


def test_a_held_out_loss_says_how_many_prompts_were_cross_fitted():
    held_out, curve = IMITATION.charts[1], Curve((0, 9), (2.5, 1.5))
    latest = {("data/held_out", None): 0.0, ("data/cross_fitted", None): 8.0}
    assert chart_words(held_out, curve, latest, {}, None) == "now 1.50  best 1.50 at 9  n 8 prompts, cross-fitted"
    assert chart_words(held_out, curve, {("data/held_out", None): 12.0}, {}, None) == "now 1.50  best 1.50 at 9  n 12"


def test_a_policy_that_moves_against_people_is_told_in_words():
    report = WatchReport(Interval(-0.4, -0.6, -0.1, 12), 40, None, 0)
    assert agreement_words(report.figures()) == "-0.40 [-0.60, -0.10] (n 40)"
    sentence = "the reward rises while the policy moves away from what people rated high: agreement -0.40"
    assert warned(RISING, report.figures()) == sentence
    assert warned(FALLING, report.figures()).startswith("the policy moves away")
    unsure = dataclasses.replace(report, agreement=Interval(-0.1, -0.4, 0.2, 12))
    assert "(this may still be chance)" in warned(RISING, unsure.figures())
    assert warned(RISING, WatchReport(Interval(0.3, 0.1, 0.5, 12), 40, None, 0).figures()) == ""
    assert warned(RISING, {}) == agreement_words({}) == ""


def test_answers_like_none_that_was_rated_are_told_in_words():
    far = {("support/outside", None): 0.31, ("support/outside", "sw"): 0.9}
    assert warned(RISING, far) == "31% of answers are like none that was rated"
    assert warned(RISING, {("support/outside", None): 0.3}) == warned(RISING, {("support/outside", None): None}) == ""
    report = WatchReport(Interval(-0.4, -0.6, -0.1, 12), 40, None, 0)
    both = warned(FALLING, report.figures() | far)
    assert both == (
        "the policy moves away from what people rated high: agreement -0.40; "
        "31% of answers are like none that was rated"
    )


def test_policy_optimisation_shows_its_sampler_gap_and_what_lies_outside():
    latest = {("policy/sampler_gap", None): 3.1e-11, ("loss/policy", None): -0.0123}
    curves = {("support/outside", None): Curve((1, 2), (0.05, 0.12))}
    told = [part.plain for part in figures(POLICY, curves, latest)]
    assert told[0].startswith("outside 12% ")
    assert told[1:] == ["sampler gap 3.1e-11 nats/token", "policy loss -0.0123"]
    outside = POLICY.charts[2]
    assert chart_words(outside, curves["support/outside", None], {}, {"ppo": {"batch": 16}}, None) == (
        "now 12%  best 5% at 1  n 16"
    )
    assert outside.languages


def test_the_parts_of_a_mixed_reward_are_drawn_and_what_they_take_the_place_of_is_told():
    parts = {("reward/part_zeal", None): -1, ("reward/part_language", None): 0.5, ("reward/part_learned", None): 0.25}
    latest = parts | {("reward/part_zeal", "es"): -1, ("support/outside", None): 0.125, ("response/length", None): 31}
    board = with_parts(POLICY, latest)
    assert [chart.label for chart in board.charts] == ["reward", "KL", "learned", "language"]
    assert board.columns == POLICY.columns
    assert [part.plain for part in figures(board, {}, latest)] == ["outside 12%", "length 31", "zeal -1.00"]
    alone = with_parts(POLICY, {("reward/part_language", None): 0.5})
    assert [chart.label for chart in alone.charts] == ["reward", "KL", "outside", "language"]
    assert with_parts(POLICY, {("objective/scores", None): 1.0}) == POLICY
    assert with_parts(REWARD, {("reward/spearman", None): 0.5}) == REWARD


def test_a_figure_that_could_not_be_told_is_a_dash_with_its_reason(database: Database):
    rows = ("watch/human_rows", None)
    assert agreement_words({("watch/human_agreement", None): None, rows: 40.0}) == (
        "- (n 40, shifts or ratings all equal)"
    )
    assert agreement_words({("watch/human_agreement", None): 0.3, rows: 40.0}) == "+0.30 (n 40, no interval)"
    assert warned(RISING, {("watch/human_agreement", None): None, rows: 40.0}) == ""
    latest = {("value/explained_variance", None): None, ("policy/clipfrac", None): 0.1}
    assert [part.plain for part in figures(POLICY, {}, latest)] == ["clip 0.10", "value EV - (returns all equal)"]
    result = {
        "reward_model": "rm2", "examples": 212, "spearman": None, "spearman_n": 12, "pair_accuracy": 0.5, "pair_n": 2,
        "reasons": {"spearman": "all 12 held-out scores are equal", "pair_accuracy_interval": "1 prompt"},
    }  # fmt: skip
    assert outcome(ended(database, "reward", result)) == (
        "rm2, learned from 212 examples, rank correlation - (all 12 held-out scores are equal), "
        "pair accuracy 50% (n 2, no interval: 1 prompt)"
    )


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_the_warning_stands_on_the_screen_at_every_size(
    workspace: Workspace, database: Database, size: tuple[int, int]
):
    job = learning(database, "ppo", "policy", {"objective/kl": 3.0})
    report = WatchReport(Interval(-0.4, -0.6, -0.1, 12), 40, None, 0)
    for step, reward in ((1, 0.1), (2, 0.6)):
        metrics.record(database, job.id, step, report.figures() | {("objective/scores", None): reward})
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.desk is not None)
        await pilot.press("f3")
        await until(pilot, lambda: "! the reward rises while the policy" in visible(app))
        if size[0] >= 80:
            assert "human agreement -0.40 [-0.60, -0.10] (n 40)" in visible(app)


def ended(database: Database, kind: str, result: dict[str, object]) -> Job:
    job = jobs.claim(database, "test", job_id=jobs.enqueue(database, kind, {}).id)
    assert job is not None
    jobs.finish(database, job, result)
    return jobs.get(database, job.id)


def test_a_fitted_reward_model_is_told_with_its_held_out_figures(database: Database):
    result = {
        "reward_model": "rm2", "examples": 212, "held_out": 24, "spearman": 0.62, "spearman_n": 31,
        "spearman_interval": [0.41, 0.77], "pair_accuracy": 0.71, "pair_n": 14, "pair_accuracy_interval": None,
        "label_accuracy": None, "label_n": 0, "label_accuracy_interval": None,
    }  # fmt: skip
    assert outcome(ended(database, "reward", result)) == (
        "rm2, learned from 212 examples, rank correlation +0.62 [+0.41, +0.77] (n 31), pair accuracy 71% (n 14)"
    )
    within = result | {
        "within_prompt_accuracy": 0.74, "within_prompt_n": 176, "within_prompt_accuracy_interval": [0.66, 0.81],
        "between_prompts_spearman": None, "between_prompts_n": 3, "reasons": {"between_prompts_spearman": "3 prompts"},
        "learning_curve": {"words": "half to all of the ratings 70% to 74%, more would help (more would help: de)"},
    }  # fmt: skip
    assert outcome(ended(database, "reward", within)).startswith(
        "rm2, learned from 212 examples, better of two answers to a prompt 74% [66%, 81%] (n 176), "
        "prompts' means - (3 prompts), rank correlation +0.62"
    )
    assert outcome(ended(database, "reward", within)).endswith("more would help (more would help: de)")
    few = result | {"spearman": None, "pair_accuracy": None}
    assert outcome(ended(database, "reward", few)).endswith("too few of the 24 kept apart to say how good it is")


def test_an_imitation_is_told_with_its_held_out_loss(database: Database):
    result = {"version": "v2", "state": "published", "gates": [], "loss_gain": 0.21, "kl": 2.0}
    assert outcome(ended(database, "sft", result)) == "v2 published, held-out loss lower by 0.210 nats/token, KL 2.0"
