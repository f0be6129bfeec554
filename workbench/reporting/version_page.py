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
from storage.html_page import Html, cards, curve, escaped, interval, marked, page, paragraph, quotation, table
from storage.records import Evaluation, Job, Source, Split, Version
from storage.wording import counted

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
        *_head(database, version, behind),
        "<h2>Data</h2>", *_data(database, behind),
        "<h2>Raters</h2>", *_raters(database, behind, names=names),
        "<h2>Training</h2>", *_training(database, version, job),
        "<h2>What the gate found</h2>", *_gates(version),
        "<h2>Blind pairs</h2>", *_won(database, version),
        "<h2>Controls</h2>", *_controls(database, version, job),
        "<h2>Evaluations</h2>", *_measured(database, version),
        "<h2>Answers before and after</h2>", *_answers(version),
        "<h2>Limits</h2>", _limits(database, version, behind),
        "<h2>Which version this is</h2>", _identity(version),
    ]  # fmt: skip
    return page(f"{version.base_model} {version.name}", parts)


def _head(database: Database, version: Version, behind: list[str]) -> list[str]:
    """What it is, and the figures that matter most."""
    lineage = " ← ".join(versions.lineage(database, version))
    control = version.metrics.get("control")
    warning = [paragraph(f"It is a control, of {control} ratings: it was never to be published.")] if control else []
    made = version.created_at[:16].replace("T", " ")
    counts = learned_from.counts(database, behind)
    raters, spoken = len(counts["rater"]), len(counts["language"])
    sources = ", ".join(f"{name} {n}" for name, n in counts["source"].items() if name != Source.HUMAN)
    rated = f"ratings behind it, of {counted(raters, 'rater')} in {counted(spoken, 'language')}"
    rated += f" ({sources})" if sources else ""
    shown: list[tuple[object, object]] = [(version.state, f"{lineage}, made {made} UTC")]
    if (gain := number(version.metrics.get("reward_gain"))) is not None:
        shown.append((f"{gain:+.2f}{_span(version.metrics.get('reward_gain_interval'))}",
                      "reward gained over its parent, in deviations"))  # fmt: skip
    if (loss := number(version.metrics.get("loss_gain"))) is not None:
        shown.append((f"{loss:+.3f}", "held-out loss lower by, nats a token"))
    if (won := winning.headline(winning.win_rates(database), version)) is not None:
        shown.append((f"{won.rate:.0%} [{won.low:.0%}, {won.high:.0%}]",
                      f"of {counted(won.n, 'blind pair')} ({won.source}) won against {won.against}: "
                      f"{won.verdict}"))  # fmt: skip
    shown.append((f"{learned_from.count(database, behind):,}", rated))
    if version.gates:
        passed = sum(bool(gate.get("passed")) for gate in version.gates)
        shown.append((f"{passed} of {len(version.gates)}", "gates passed"))
    return [*warning, cards(shown)]


def _identity(version: Version) -> str:
    rows: list[list[Any]] = [
        ["kind", version.kind], ["base model", version.base_model], ["SHA-256 of its base", version.base_digest],
        ["SHA-256 of its file", version.sha256],
    ]  # fmt: skip
    return table(["", ""], rows)


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
    imitated = learned_from.imitated_in_words(learned_from.imitated(database, behind))
    return [
        paragraph(f"Imitated were {imitated}.") if imitated else "",
        paragraph(f"{counted(total, 'rating is', 'ratings are')} behind it: those that it and what it goes back to "
                  "learned from. Prompts are those of the workspace today; held-out ones train nothing."),
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
        agreed = (f"Krippendorff's alpha of {overall.kind} is {overall.alpha:.2f}{span}, "
                  f"over {counted(overall.units, 'answer')} "
                  f"that several of {counted(overall.raters, 'rater')} judged, in the whole workspace.")  # fmt: skip
    return [
        paragraph(f"Ratings by source: {sources or 'none'}. {agreed}"),
        table(["", "ratings"], rows) if rows else "",
    ]


def _training(database: Database, version: Version, job: Job | None) -> list[str]:
    if job is None:
        return [paragraph(f"No job of this workspace made it; its parent is {version.parent or 'none'}.")]
    series = {title: metrics.series(database, job.id, name) for name, title in CURVES.items()}
    known = {title: [value for _, value in points if value is not None] for title, points in series.items()}
    drawn = [curve(title, points) for title, points in series.items() if len(known[title]) > 1]
    alone = [f"{title} {values[0]:.3g}" for title, values in known.items() if len(values) == 1]
    return [
        paragraph(f"By {job.kind} from {version.parent}, to step {version.step}."),
        f'<div class="curves">{"".join(drawn)}</div>' if drawn else paragraph("No curve was recorded.", "faint"),
        paragraph(f"Of one step: {', '.join(alone)}.", "faint") if alone else "",
        "<details><summary>Settings</summary>",
        table(["setting", "value"], learned_from.settings_of(job)),
        "</details>",
    ]


def _gates(version: Version) -> list[str]:
    figures = [[words, _figure(version.metrics, name)] for name, words in FIGURES.items() if name in version.metrics]
    by_language = version.metrics.get("reward_gain_by_language")
    told = [
        (name, mean, number(gain.get("low")), number(gain.get("high")), gain.get("n"))
        for name, gain in (by_language if isinstance(by_language, dict) else {}).items()
        if isinstance(gain, dict) and (mean := number(gain.get("mean"))) is not None
    ]
    axis = _axis([one for _, mean, low, high, _ in told for one in (mean, low, high)])
    gains = [[name, _drawn(mean, low, high, axis), n] for name, mean, low, high, n in told]
    gates = [
        [
            marked("passed" if gate.get("passed") else "FAILED", good=bool(gate.get("passed"))),
            gate.get("gate"),
            gate.get("detail") or gate.get("value"),
        ]
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
            ["against", "by", "of", "won", "pairs", "verdict"],
            [[rate.against, rate.source, rate.language or rate.part,
              interval(rate.rate, rate.low, rate.high, (0.0, 1.0), 0.5,
                       f"{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]"), rate.n, rate.verdict] for rate in rates],
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
    """The newest figures of each suite: over all languages beside another version, and then by language."""
    found = [one for one in evaluations.measured(database, version.name) if not one.is_empty]
    if not found:
        return [paragraph("It was measured on no suite; `trainer evaluate` does.", "faint")]
    against = next((one.gain.against for one in found if one.gain), None)
    rows = [
        [one.now.suite, _metric(one.now.metric), _value(one.now),
         *([_value(one.then), _gained(one.gain)] if against else []), one.now.n]
        for one in found if one.now.language is None
    ]  # fmt: skip
    beside = [against, f"gained over {against}"] if against else []
    parts = [
        paragraph("Suites that nothing is learned from, with 95% intervals. A gain above 0 is for the better, whatever "
                  "way the figure goes; one whose interval leaves out 0 stands out."),
        table(["suite", "figure", version.name, *beside, "items"], rows),
    ]  # fmt: skip
    for suite in dict.fromkeys(one.now.suite for one in found):
        own = {(one.now.language, one.now.metric): one for one in found if one.now.suite == suite and one.now.language}
        shown = list(dict.fromkeys(metric for (_, metric), one in own.items()))
        if own:
            parts.append(f"<h3>{escaped(suite)}, by language</h3>")
            parts.append(table(
                ["language", *map(_metric, shown)],
                [[language, *(_both(own.get((language, metric))) for metric in shown)]
                 for language in sorted({language for language, _ in own})],
            ))  # fmt: skip
    return parts


def _metric(name: str) -> str:
    return name.replace("/", ", ").replace("_", " ")


def _value(row: Evaluation | None) -> str | None:
    return None if row is None else f"{row.value:.2f}{_bounds(row)}"


def _bounds(row: Evaluation, sign: str = "") -> str:
    return "" if row.low is None or row.high is None else f" [{row.low:{sign}.2f}, {row.high:{sign}.2f}]"


def _gained(row: Evaluation | None) -> str | Html | None:
    """A gain; where its interval leaves out 0, marked."""
    if row is None:
        return None
    told = f"{row.value:+.2f}{_bounds(row, '+')}"
    if row.low is not None and row.high is not None and (row.low > 0 or row.high < 0):
        return marked(f"{'▲' if row.low > 0 else '▼'} {told}", good=row.low > 0)
    return told


def _both(one: evaluations.Beside | None) -> Html | None:
    """A figure in a language with what it gained, in one cell."""
    if one is None:
        return None
    told = _gained(one.gain)
    more = "" if told is None else f'<div class="faint">{told if isinstance(told, Html) else escaped(told)}</div>'
    return Html(f"{one.now.value:.2f}{more}")


def _axis(values: list[float | None]) -> tuple[float, float]:
    """An axis on which all of them and 0 have room."""
    known = [0.0, *(value for value in values if value is not None)]
    return min(known), max(known)


def _drawn(mean: float, low: float | None, high: float | None, axis: tuple[float, float]) -> Html:
    return interval(mean, low, high, axis, 0.0, f"{mean:+.2f}{_span([low, high])}")


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
    people = learned_from.by_people(database, behind)
    few = [f"{name} ({many})" for name, many in people.items() if many < FEW_RATINGS]
    if few:
        told.append(f"Fewer than {FEW_RATINGS} ratings of people are of: {', '.join(few)}.")
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
    found = interval_of(bounds)
    return "" if found is None else f" [{found[0]:.3g}, {found[1]:.3g}]"


def _reward_of(one: dict[str, Any], when: str) -> str:
    reward = number(one.get(f"reward_{when}"))
    return "" if reward is None else f", reward {reward:+.2f}"
