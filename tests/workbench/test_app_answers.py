"""Versions: what the gate found, in words, and held-out answers before and after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from driving import SIZES, opened, ready, until, visible
from textual.geometry import Region

from storage import versions
from storage.database import Database
from storage.records import Prompt
from storage.workspace import Workspace
from trainer.algorithms.rollouts import Rollout
from trainer.evaluation.gate import GateReport, measure
from trainer.evaluation.intervals import Interval
from trainer.evaluation.judging import Judge
from trainer.evaluation.seen import Side
from trainer.evaluation.watch import WatchReport
from trainer.policy.decoding import Completion
from trainer.reward.protocol import ConstantReward, Scores
from workbench.screens.versions.answers import AnswersSheet
from workbench.shell.app import WorkbenchApp
from workbench.training import verdict

FOUND: dict[str, Any] = {
    "reward_gain": 1.15, "reward_gain_interval": [0.43, 1.88], "held_out_prompts": 40,
    "reward_gain_matched": 0.2, "reward_gain_matched_interval": [-0.1, 0.5], "reward_gain_matched_reason": "",
    "length_before": 41.2, "length_after": 12.0, "finished_before": 0.14, "finished_after": 0.97,
    "outside_support": 0.31, "outside_support_before": None, "rests_on": "finishing", "missing_eos_penalty": 1.0,
    "control": "", "kl": 3.1,
    "answers": [
        {"prompt": f"Was ist [/INST] Eis \x1b[31m{n}?", "language": "de", "before": f"Eis ist und ist und {n}",
         "after": "Gefrorenes Wasser.", "reward_before": -0.2, "reward_after": 0.9, "tokens_before": 48,
         "tokens_after": 1, "finished_before": False, "finished_after": True}
        for n in range(6)
    ],
    "reward_gain_by_language": {"de": {"mean": 0.4, "low": 0.1, "high": 0.7, "n": 20}},
}  # fmt: skip


def version_with(workspace: Workspace, database: Database, metrics: dict[str, Any]) -> None:
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    made = versions.add_candidate(database, base=base, parent="v0", file="versions/v1", sha256="0", metrics=metrics)
    gates = [{"gate": "reward gain", "passed": True, "detail": "fine"},
             {"gate": "finishing", "passed": False, "detail": "answers end, and that is all"}]  # fmt: skip
    versions.record_gates(database, made.name, gates, {})


async def shown(pilot) -> WorkbenchApp:  # type: ignore[no-untyped-def]
    app = await opened(pilot)
    ready(app)
    await pilot.press("f6")
    await until(pilot, lambda: "v1" in visible(app) and bool(app.screen.versions))  # type: ignore[attr-defined]
    return app


def words(metrics: dict[str, Any]) -> str:
    return "   ".join(piece.plain for piece in verdict.figures(metrics))


def test_the_figures_are_words_with_units():
    assert words(FOUND) == (
        "reward +1.15 [+0.43, +1.88] (n 40),   with finishing taken out +0.20 [-0.10, +0.50]   tokens 41 → 12   "
        "finished 14% → 97%   outside what was rated - → 31%   KL 3.1 nats/response   an answer cut off costs 1 reward"
    )
    assert [flag.plain for flag in verdict.flags(FOUND)] == ["! this gain rests on finishing alone"]
    language = verdict.by_language(FOUND)
    assert language is not None
    assert language.plain == "gain by language  de +0.40 [+0.10, +0.70] (n 20)"
    assert verdict.others(FOUND) is None


def test_a_figure_that_could_not_be_told_is_a_dash_with_its_reason():
    found = {"reward_gain": 0.4, "reward_gain_matched": None, "reward_gain_matched_reason": "no\nprompt ended twice"}
    assert words(found) == "reward +0.40,   with finishing taken out - (no prompt ended twice)"
    assert words({"reward_gain": None, "length_before": None, "length_after": 3.0}) == "reward -   tokens - → 3"


def test_the_judge_and_what_it_does_not_know_are_told():
    found = {
        "reward_gain": 1.0, "reward_gain_interval": [0.4, 1.6], "reward_gain_unknown": 0.35, "held_out_prompts": 12,
        "judge_agreement": 0.52, "judge_agreement_interval": [0.34, 0.66], "human_agreement": 0.3,
        "human_agreement_interval": None, "reasons": {"human_agreement_interval": "4 prompts, too alike"},
    }  # fmt: skip
    assert words(found) == (
        "reward +1.00 [+0.40, +1.60] (n 12) of which ±0.35 is the judge's   the judge foretells unseen ratings by "
        "+0.52 [+0.34, +0.66]   shift agrees with people by +0.30 (no interval: 4 prompts, too alike)"
    )
    lacking = {"judge_agreement": None, "judge_agreement_interval": None,
               "reasons": {"judge_agreement": "rm1 has no judge beside it"}}  # fmt: skip
    assert words(lacking) == "the judge foretells unseen ratings by - (rm1 has no judge beside it)"
    assert verdict.others(found) is verdict.others(lacking) is None


def test_whatever_the_gate_tells_has_words_of_its_own():
    rollouts = [
        Rollout(Prompt(f"p{n}", "¿Qué es?", "es", "2025-01-01T00:00:00Z"), [1], Completion([3, 2], [-1.0, -0.5], "eos"),
                f"respuesta {n}")
        for n in range(6)
    ]  # fmt: skip
    before, after = (Side(rollouts, Scores.certain(torch.arange(6.0) + rise)) for rise in (0.0, 1.0))
    agreed = Interval(0.3, 0.1, 0.5, 12)
    jury = Judge(ConstantReward(), agreed)
    report = GateReport(
        [], 3.0, before, after, 1, measure(jury, before, after, 1), agreed, WatchReport(agreed, 12, None, 0), jury
    )
    metrics = report.metrics()
    assert verdict.others(metrics) is None
    told = words(metrics)
    for part in ("reward +1.00", "with finishing taken out", "judge foretells", "people by +0.30", "KL 3.0", "0% → 0%"):
        assert part in told
    assert len(verdict.answers(metrics)) == 6
    assert verdict.by_language(metrics) is not None


def test_an_older_version_says_only_what_it_has():
    assert words({"reward_gain": 0.41, "kl": 3.1}) == "reward +0.41   KL 3.1 nats/response"
    assert verdict.flags({}) == []
    assert verdict.answers({}) == verdict.answers({"answers": "no"}) == []


def test_what_others_recorded_keeps_its_name():
    others = verdict.others({"mine/figure": 0.25, "kl": 1.0, "nested": {}})
    assert others is not None
    assert others.plain == "mine/figure 0.25"


@pytest.mark.parametrize("size", SIZES)
async def test_answers_stand_beside_each_other_and_below_80_columns_under(
    workspace: Workspace, database: Database, size: tuple[int, int]
):
    version_with(workspace, database, FOUND)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        await shown(pilot)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, AnswersSheet) and "rests on finishing" in visible(app))
        before, after = list(app.screen.query(".said"))[:2]
        await until(pilot, lambda: before.region != Region())
        assert (before.region.y == after.region.y) is (size[0] >= 80)
        assert len(app.screen.query(".said")) == 12
        assert "\x1b" not in visible(app)
        await pilot.press("end")
        await until(pilot, lambda: "Gefrorenes Wasser." in visible(app))
        if size[0] >= 120:
            await until(pilot, lambda: "1 token · finished · reward +0.90" in visible(app))
            await until(pilot, lambda: "48 tokens · cut off · reward -0.20" in visible(app))
        if size[0] >= 80:
            await until(pilot, lambda: "de ▸ Was ist [/INST] Eis ␛[31m5?" in visible(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_the_detail_says_the_verdict_and_failed_gates_first(workspace: Workspace, database: Database):
    version_with(workspace, database, FOUND)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot)
        await until(pilot, lambda: "rests on finishing alone" in visible(app))
        seen = visible(app)
        assert "tokens 41 → 12" in seen
        assert "with finishing taken out +0.20 [-0.10, +0.50]" in seen
        assert seen.index("✕ failed  finishing") < seen.index("✓ passed  reward gain")
        assert "Gefrorenes" not in seen


async def test_a_version_without_answers_says_so(workspace: Workspace, database: Database):
    version_with(workspace, database, {"reward_gain": 0.4})
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(pilot)
        await pilot.press("o")
        await until(pilot, lambda: "No answers were kept with this version." in visible(app))


@pytest.mark.parametrize("size", SIZES)
async def test_a_control_is_unmistakable_and_cannot_be_published(
    workspace: Workspace, database: Database, size: tuple[int, int]
):
    version_with(workspace, database, FOUND | {"control": "shuffled"})
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size, notifications=True) as pilot:
        await shown(pilot)
        await until(pilot, lambda: "⊘ control" in visible(app))
        if size[0] >= 80:
            await until(pilot, lambda: "control: shuffled ratings, never published" in visible(app))
        await pilot.press("p")
        await until(pilot, lambda: "a control is" in visible(app) and "never published" in visible(app))
        assert len(app.screen_stack) == 1
        served = versions.served(database)
        assert served is not None
        assert served.name == "v0"
