"""One HTML page of a version: what it learned from, how it went, what the gate and people found, and what is not known.

Raters are numbered and not named, unless that is asked for. All texts are escaped; nothing is loaded from anywhere.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from storage import conversations, evaluations, jobs, learned_from, metrics, versions
from storage.comparison import MAIN_METRICS, interval_of, number
from storage.database import Database
from storage.feedback import agreement, winning
from storage.html_page import curve, escaped, page, paragraph, quotation, table
from storage.records import Job, Split, Version

CURVES = {**MAIN_METRICS, "loss/reward": "reward model's loss", "loss/policy": "policy loss"}
# Figures of the gate, in words; those that a version lacks are left out.
FIGURES = {
    "reward_gain": "reward gained over its parent, on held-out prompts",
    "reward_gain_matched": "the same with finishing taken out",
    "loss_gain": "held-out loss lower by, nats a token",
    "kl": "KL from its reference, nats an answer",
    "judge_agreement": "how well the judge foretells ratings it never saw, rank correlation",
    "human_agreement": "how far what changed agrees with people",
    "length_before": "tokens an answer, before", "length_after": "tokens an answer, after",
    "finished_before": "share of answers that end, before", "finished_after": "share of answers that end, after",
    "outside_support": "share of answers like none that was rated",
    "held_out_prompts": "held-out prompts that were measured",
}  # fmt: skip
FEW_PROMPTS, FEW_PAIRS, FEW_RATINGS = 30, 30, 20


def version_page(database: Database, version: Version, *, names: bool = False) -> str:
    """The page. `names` puts the names of raters in, where they are numbers otherwise."""
    job = jobs.get(database, version.job_id) if version.job_id else None
    behind = learned_from.jobs_of_lineage(database, version)
    parts = [
        *_head(database, version),
        "<h2>Data</h2>", *_data(database, behind),
        "<h2>Raters</h2>", *_raters(database, behind, names=names),
        "<h2>Training</h2>", *_training(database, version, job),
        "<h2>What the gate found</h2>", *_gates(version),
        "<h2>Blind pairs</h2>", *_won(database, version),
        "<h2>Controls</h2>", *_controls(database, version, job),
        *_measured(database, version),
        "<h2>Answers before and after</h2>", *_answers(version),
        "<h2>Limits</h2>", _limits(database, version, behind),
    ]  # fmt: skip
    return page(f"{version.base_model} {version.name}", parts)


def _head(database: Database, version: Version) -> list[str]:
    lineage = " ← ".join(versions.lineage(database, version))
    rows: list[list[Any]] = [
        ["state", version.state], ["made", version.created_at[:16].replace("T", " ")], ["kind", version.kind],
        ["goes back to", lineage], ["base model", version.base_model], ["SHA-256 of its base", version.base_digest],
        ["SHA-256 of its file", version.sha256],
    ]  # fmt: skip
    control = version.metrics.get("control")
    warning = [paragraph(f"It is a control, of {control} ratings: it was never to be published.")] if control else []
    return [*warning, table(["", ""], rows)]


def _data(database: Database, behind: list[str]) -> list[str]:
    by_kind = learned_from.by_language_and_kind(database, behind)
    kinds = sorted({kind for own in by_kind.values() for kind in own})
    prompts = {split: Counter(one.language for one in conversations.by_split(database, split))
               for split in (Split.TRAIN, Split.HELD_OUT)}  # fmt: skip
    languages = sorted({*by_kind, *prompts[Split.TRAIN], *prompts[Split.HELD_OUT]})
    total = learned_from.count(database, behind)
    rows = [
        [name, prompts[Split.TRAIN][name], prompts[Split.HELD_OUT][name], sum(by_kind.get(name, {}).values()),
         *(by_kind.get(name, {}).get(kind, 0) for kind in kinds)]
        for name in languages
    ]  # fmt: skip
    return [
        paragraph(f"{total} ratings are behind it: those that it and what it goes back to learned from. Prompts are "
                  "those of the workspace today; held-out ones train nothing."),
        table(["language", "prompts", "held out", "ratings", *kinds], rows),
    ]  # fmt: skip


def _raters(database: Database, behind: list[str], *, names: bool) -> list[str]:
    found = learned_from.counts(database, behind)
    sources = ", ".join(f"{name} {count}" for name, count in found["source"].items())
    rows = [
        [name if names else f"rater {place}", count] for place, (name, count) in enumerate(found["rater"].items(), 1)
    ]
    overall = agreement.measure(database).overall
    if overall.alpha is None:
        agreed = f"How far they agree is not known: {overall.why}."
    else:
        span = "" if overall.interval is None else f" [{overall.interval[0]:.2f}, {overall.interval[1]:.2f}]"
        agreed = (f"Krippendorff's alpha of {overall.kind} is {overall.alpha:.2f}{span}, over {overall.units} answers "
                  f"that several of {overall.raters} raters judged, in the whole workspace.")  # fmt: skip
    return [
        paragraph(f"Ratings by source: {sources or 'none'}. {agreed}"),
        table(["", "ratings"], rows) if rows else "",
    ]


def _training(database: Database, version: Version, job: Job | None) -> list[str]:
    if job is None:
        return [paragraph(f"No job of this workspace made it; its parent is {version.parent or 'none'}.")]
    drawn = [curve(title, metrics.series(database, job.id, name)) for name, title in CURVES.items()]
    return [
        paragraph(f"By {job.kind} from {version.parent}, to step {version.step}."),
        "".join(drawn) or paragraph("No curve was recorded.", "faint"),
        "<details><summary>Settings</summary>",
        table(["setting", "value"], learned_from.settings_of(job)),
        "</details>",
    ]


def _gates(version: Version) -> list[str]:
    figures = [[words, _figure(version.metrics, name)] for name, words in FIGURES.items() if name in version.metrics]
    by_language = version.metrics.get("reward_gain_by_language")
    gains = [
        [name, f"{mean:+.2f}{_span([gain.get('low'), gain.get('high')])}", gain.get("n")]
        for name, gain in (by_language if isinstance(by_language, dict) else {}).items()
        if isinstance(gain, dict) and (mean := number(gain.get("mean"))) is not None
    ]
    gates = [
        ["passed" if gate.get("passed") else "FAILED", gate.get("gate"), gate.get("detail") or gate.get("value")]
        for gate in sorted(version.gates, key=lambda gate: bool(gate.get("passed")))
    ]
    return [
        table(["", "gate", "found"], gates) if gates else paragraph("No gate was asked.", "faint"),
        table(["figure", ""], figures) if figures else "",
        "<h3>Reward gained, by language</h3>" + table(["language", "gain", "prompts"], gains) if gains else "",
    ]


def _won(database: Database, version: Version) -> list[str]:
    rates = [rate for rate in winning.win_rates(database) if rate.version == version.name]
    if not rates:
        return [paragraph("Nobody has compared it blind with an older version.", "faint")]
    return [
        paragraph("How often its answers were preferred; a tie counts one half. The intervals (95%) hold however often "
                  "one looks."),
        table(
            ["against", "by", "of", "won", "interval", "pairs", "verdict"],
            [[rate.against, rate.source, rate.language or rate.part, f"{rate.rate:.0%}",
              f"[{rate.low:.0%}, {rate.high:.0%}]", rate.n, rate.verdict] for rate in rates],
        ),
    ]  # fmt: skip


def _controls(database: Database, version: Version, job: Job | None) -> list[str]:
    """The control runs of its kind from its parent: what ratings that say nothing gave."""
    kind = None if job is None else job.kind
    rows = []
    for other in versions.every(database):
        control = other.metrics.get("control")
        own = jobs.get(database, other.job_id) if other.job_id else None
        if control and own is not None and own.kind == kind and other.parent == version.parent:
            passed = sum(bool(gate.get("passed")) for gate in other.gates)
            gain = _figure(other.metrics, "reward_gain")
            rows.append([other.name, control, own.config.get("seed"), gain, f"{passed} of {len(other.gates)}"])
    if not rows:
        return [paragraph("None was run beside it: what a run like it gains from ratings that say nothing is not "
                          "known.", "faint")]  # fmt: skip
    return [
        paragraph("Runs of the same kind from the same parent, on ratings that say nothing; they are never published."),
        table(["version", "ratings", "seed", "reward gained", "gates passed"], rows),
    ]


def _measured(database: Database, version: Version) -> list[str]:
    """What `trainer evaluate` found of it, and what it gained over the version that was measured with it."""
    rows = []
    for one in evaluations.measured(database, version.name):
        now, gain = one.now, one.gain
        gained = None if gain is None else f"{gain.value:+.3g}{_span([gain.low, gain.high])} over {gain.against}"
        value = f"{now.value:.3g}{_span([now.low, now.high])}"
        rows.append([now.suite, now.metric, now.language or "all", value, now.n, gained])
    if not rows:
        return []
    return ["<h2>Evaluations</h2>", table(["suite", "figure", "language", "value", "n", "better by"], rows)]


def _answers(version: Version) -> list[str]:
    kept = version.metrics.get("answers")
    shown = [one for one in kept if isinstance(one, dict)] if isinstance(kept, list) else []
    if not shown:
        return [paragraph("None were kept with it.", "faint")]
    parts = [paragraph("The first answers to a few held-out prompts, not chosen by what they say.", "faint")]
    for one in shown:
        parts += [f"<h3>{escaped(one.get('language') or '-')}</h3>", quotation(one.get("prompt") or "")]
        sides = (
            f'<div><p class="faint">{when}{_reward_of(one, when)}</p>{quotation(one.get(when) or "(nothing)")}</div>'
            for when in ("before", "after")
        )
        parts.append(f'<div class="pair">{"".join(sides)}</div>')
    return parts


def _limits(database: Database, version: Version, behind: list[str]) -> str:
    told = [
        "The figures are of held-out prompts of one workspace, and say nothing of other prompts, languages or raters.",
        "A gate measures by a reward model, which is not the person.",
    ]
    prompts = number(version.metrics.get("held_out_prompts"))
    if not version.gates:
        told.append("No gate has measured it.")
    elif prompts is not None and prompts < FEW_PROMPTS:
        told.append(f"Only {prompts:.0f} held-out prompts were measured: small gains cannot be told from none.")
    by_kind = learned_from.by_language_and_kind(database, behind)
    few = [f"{name} ({sum(own.values())})" for name, own in by_kind.items() if sum(own.values()) < FEW_RATINGS]
    if few:
        told.append(f"Fewer than {FEW_RATINGS} ratings are of: {', '.join(few)}.")
    pairs = winning.headline(winning.win_rates(database), version)
    if pairs is None or pairs.n < FEW_PAIRS:
        told.append("Too few blind pairs were judged to say whether people prefer it.")
    if len(learned_from.counts(database, behind)["rater"]) == 1:
        told.append("One rater gave all ratings: the reward is one person's taste.")
    if {"simulated", "ai"} & learned_from.counts(database, behind)["source"].keys():
        told.append("Not all ratings are of people: see the sources above.")
    if rests_on := version.metrics.get("rests_on"):
        told.append(f"Its gain in reward rests on {rests_on} alone.")
    return "<ul>" + "".join(f"<li>{escaped(one)}</li>" for one in told) + "</ul>"


def _figure(found: dict[str, Any], name: str) -> str:
    """A figure with its interval, or why it is not known."""
    value = number(found.get(name))
    if value is None:
        reasons = found.get("reasons")
        reason = found.get(f"{name}_reason") or (reasons.get(name) if isinstance(reasons, dict) else None)
        return f"not known ({reason})" if reason else "not known"
    return f"{value:.3g}{_span(found.get(f'{name}_interval'))}"


def _span(bounds: object) -> str:
    interval = interval_of(bounds)
    return "" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]"


def _reward_of(one: dict[str, Any], when: str) -> str:
    reward = number(one.get(f"reward_{when}"))
    return "" if reward is None else f", reward {reward:+.2f}"
