"""`workbench outcome`: tell what came of an answer."""

from __future__ import annotations

import click

from storage import raters, samples
from storage.feedback import log
from storage.feedback.outcome import USUAL_SCALE
from workbench.commands.options import json_option, opened, print_json, say, workspace_option
from workbench.shell import session


@click.command()
@click.argument("sample")
@click.argument("text", default="")
@click.option("--worked/--failed", "worked", default=None, help="Whether it did what it was for.")
@click.option("--score", type=float, help="How well it did, on the scale.")
@click.option(
    "--scale", type=float, nargs=2, default=USUAL_SCALE, metavar="LOW HIGH", help="Of the score. Default: 1 5."
)
@click.option("--rater", default=None, help="Who tells it. Default: the rater that is set.")
@json_option
@workspace_option
def outcome(
    sample: str,
    text: str,
    worked: bool | None,
    score: float | None,
    scale: tuple[float, float],
    rater: str | None,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Tell what came of the answer SAMPLE: why, in TEXT, whether it worked, how well, or any of these.

    Hindsight learns from it, beside ratings; `trainer hindsight --show 5` tells what it would learn. SAMPLE is the key
    of an answer, or the beginning of one key alone: `workbench generate --json` prints it. An outcome told again
    replaces the earlier one. Many are imported as records of `prompt`, `response` and `outcome` (worked, failed, or
    words), with `outcome_reason` and `outcome_score` where they are known.

    \b
    Examples:
      workbench outcome 01a21784-371b "The bread rose, and was eaten."
      workbench outcome 01a21784-371b --failed "It did not rise."
      workbench outcome 01a21784-371b --worked --score 4
    """
    with opened(workspace) as (_, database):
        by = raters.of_a_person(rater) if rater else session.load(database).rater
        made = log.outcome(samples.named(database, sample).id, text, by, worked=worked, score=score, scale=scale)
        stored = log.append(database, made)
    if as_json:
        print_json(
            {
                "rating": stored.id, "sample": stored.sample_id, "outcome": stored.text, "worked": worked,
                "score": score, "scale": None if score is None else list(scale), "replaced": stored.supersedes,
            }
        )  # fmt: skip
    else:
        say("stored" if stored.supersedes is None else "stored, in place of what was told before")
