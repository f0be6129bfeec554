"""What `trainer explain` prints of a version's ratings, and of the versions that a rating shaped."""

from __future__ import annotations

from collections.abc import Mapping

from storage import learned_from
from storage.signs import one_line
from storage.wording import counted
from trainer.explaining.ratings import RatingShaped, Told, VersionBehind
from trainer.explaining.weighing import Mean, Weighs

FEW = 10  # ratings on a screen


def of_version(found: VersionBehind, columns: int) -> str:
    """A version's ratings as text, at most so many columns wide."""
    line = " ← ".join(one_line(name, 20) for name in found.lineage)
    jobs = ", ".join(job[-8:] for job in found.jobs) or "none"
    blocks = [f"{line}\n{counted(found.ratings, 'rating')} behind it, of the jobs {jobs}"]
    blocks.append("\n".join(
        f"  {name:8}  " + (", ".join(f"{one_line(key, 24)} {n}" for key, n in counts.items()) or "-")
        for name, counts in found.by.items()
    ))  # fmt: skip
    if found.imitated:
        blocks.append(f"{learned_from.imitated_in_words(found.imitated)} were imitated")
    if found.influence_unknown:
        blocks.append(f"influence is not known: {found.influence_unknown}")
        return "\n\n".join(blocks)
    blocks.append(
        f"{found.reward_model} was fitted to {found.taught} of them; made again, its rewards are within "
        f"{found.refit_apart or 0:.2g} deviations of the stored ones"
    )
    if found.weighs:
        blocks.append("\n".join(_weighs(found.weighs)))
    blocks.append("\n".join(_influential(found.influential[:FEW], columns)))
    return "\n\n".join(blocks)


def of_rating(found: RatingShaped, columns: int) -> str:
    """A rating and what it shaped as text."""
    lines = [
        f"{found.rating}  {one_line(found.said, 40)} by {one_line(found.rater, 30)}"
        + ("" if found.counts else "  (undone or replaced: it counts no more)"),
        f"  {one_line(found.language, 12)} ▸ {one_line(found.prompt, columns - 18)}",
        f"  {one_line(found.answer, columns - 2)}",
        "",
    ]
    for one in found.versions:
        through = "" if one.through == one.version else f", which goes back to {one_line(one.through, 20)}"
        lines.append(f"  {one_line(one.version, 20):8} {one.state:12} by job {one.job[-8:]}{through}")
    return "\n".join(lines if found.versions else [*lines, "  no version has learned from it"])


def _weighs(found: Weighs) -> list[str]:
    parts = "  ".join(f"{name} {value:.2f}" for name, value in found.parts.items())
    lines = [
        "what the reward weighs, in its deviations (± standard errors):",
        f"  over rated answers, by what is read: {parts}",
        f"  twice as long: {_with_error(found.length_doubled, found.length_doubled_error)}   "
        f"surely in the prompt's language: {_with_error(found.in_language, found.in_language_error)}",
        f"  mean of rated answers, by language: {_means(found.languages)}",
        f"  answers with a tag, above others in their language: {_means(found.tags) or 'no rated answer has one'}",
        "what the fit took for habits of raters, and the reward leaves out:",
        f"  longer answers of pairs: {_with_error(found.longer_wins, found.longer_wins_error)} logits per factor e",
    ]
    return lines + [
        f"  {one_line(name, 24):16} scores {_with_error(own['offset'], own['offset_error'])}, labels "
        f"{_with_error(own['leniency'], own['leniency_error'])}, left side "
        f"{_with_error(own['side'], own['side_error'])}"
        for name, own in found.raters.items()
    ]


def _with_error(value: float, error: float | None) -> str:
    return f"{value:+.2f}" if error is None else f"{value:+.2f} ± {error:.2f}"


def _means(found: Mapping[str, Mean]) -> str:
    return ", ".join(
        f"{one_line(name, 24)} {_with_error(one.mean, one.error)} (of {one.n})" for name, one in found.items()
    )


def _influential(listed: list[Told], columns: int) -> list[str]:
    lines = ["the ratings that moved the reward most (deviations over all rated answers, and on their own):"]
    for one in listed:
        head = f"{one.influence:.3f}  {one.pull:+.3f}  {one.rating}  {one.said}, {one.rater}"
        text = f"{one.language} ▸ {one.prompt} ▸ {one.answer}"
        lines += [f"  {one_line(head, columns - 2)}", f"      {one_line(text, columns - 6)}"]
    return lines
