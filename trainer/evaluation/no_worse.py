"""A gate for suites: in no language may a version become worse at them than its parent, beyond chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from storage.evaluations import leads
from storage.records import Sampling
from storage.wording import counted
from trainer.evaluation.figures import figures, gains
from trainer.evaluation.items import Item, Outcome
from trainer.evaluation.trying import attempt
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot

LONGEST = 64  # tokens of an answer
DRAWS = 4000  # of a bootstrap: many figures at once ask about its far ends


def suite_gates(
    backbone: Backbone,
    candidate: Snapshot,
    parent: Snapshot | None,
    items: Sequence[Item],
    check: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """The verdict on each suite, as `{gate, passed, value, bound, detail}`.

    Args:
        parent: what the version that the candidate goes on from changes; None for the base model itself.
        check: asked before each batch; may raise to stop.
    """
    sampling = Sampling(max_new_tokens=LONGEST)
    after, before = (
        attempt(backbone.decoder(side), backbone.tokenizer, items, sampling, check=lambda done: check())
        for side in (candidate, parent)
    )
    return [_verdict(suite, after, before) for suite in dict.fromkeys(item.suite for item in items)]


def _verdict(suite: str, after: Sequence[Outcome], before: Sequence[Outcome]) -> dict[str, Any]:
    """Intervals of all languages and figures together are wrong as often as one is (Bonferroni)."""
    new, old = ([one for one in side if one.item.suite == suite] for side in (after, before))
    asked = [one for one in figures(new) if one.language is not None and leads(suite, one.metric)]
    told = {
        (one.metric, one.language): one.interval
        for one in gains(new, old, 1 - 0.05 / len(asked), DRAWS)
        if one.language is not None and leads(suite, one.metric)
    }
    worse = [f"{language} ({metric} {gain})" for (metric, language), gain in told.items() if gain.high < 0]
    worst = min(gain.mean for gain in told.values())
    detail = (
        f"worse in {', '.join(worse)}" if worse else f"no worse in any of {counted(len(told), 'figure')} by language"
    )
    return {
        "gate": f"suite {suite}", "passed": not worse, "value": worst, "bound": 0.0,
        "detail": f"{detail}; no upper end of a gain may be below 0 (intervals for {len(told)} at once)",
    }  # fmt: skip
