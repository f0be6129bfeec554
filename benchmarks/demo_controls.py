"""The demo's loop beside its controls: what do the ratings teach, and what would be learned without any?

    python -m benchmarks.demo_controls [--seeds 0,1,2] [--only 0/real] [--steps 20] [--save]

For each seed, one workspace is sampled and rated as `make demo` does it. Three copies of it are trained: on the ratings
as they are, shuffled among the answers, and with one reward for all. Gold on the demo's 50 held-out prompts stands
before and after, whether the version was published or not: as it is, and with finishing taken out (answers that ended
are compared with answers that ended, cut ones with cut ones). Below it, the real run less each control, prompt by
prompt; both began at the same answers.

Rows and workspaces are kept in the work folder: the same command goes on after an interruption.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measuring, rows
from storage import conversations
from storage.database import open_database
from storage.records import Split
from storage.workspace import Workspace
from trainer.evaluation.intervals import mean_interval
from workbench.demo.figures import Measured, figures, matched, measured
from workbench.demo.walk import Scale, begin, measure, training

HEAD = ["seed", "ratings", "before", "after", "gold gain", "low", "high", "matched", "low", "high", "ended", "after",
        "KL", "state", "min"]  # fmt: skip
DIFFERENCE_HEAD = ["seed", "real less", "gold", "low", "high", "prompts", "matched", "low", "high"]
Record = dict[str, Any]


def run(folder: Path, models: Path, seed: int, kind: str, scale: Scale, model: str) -> Record:
    """One row in a copy of the seed's rated workspace; each step once."""
    rated, steps = rows.Steps(folder / "rated-steps"), rows.Steps(folder / kind / "steps")
    shared, own = folder / "rated", folder / kind / "workspace"
    before = measured(rated.once("before", lambda: asdict(_rated(shared, models, seed, scale, model))))
    if not own.exists():
        partial = folder / kind / "workspace.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(shared, partial, symlinks=True)
        partial.rename(own)
    # The control goes over by the arguments.
    arguments = training(seed, scale, model, None if kind == "real" else kind)
    trained = steps.once("training", lambda: rows.train(own, arguments))
    result, workspace = trained["result"], Workspace(own)
    after = measured(steps.once("after", lambda: asdict(measure(workspace, result["version"], scale, say, model))))
    with open_database(workspace) as database:
        held_out = conversations.by_split(database, Split.HELD_OUT)
    return {
        "seed": seed, "ratings": kind, "state": result["state"], "kl": result["kl"],
        "failed_gates": rows.failed_gates(result), **figures(before, after, held_out, seed),
        "minutes": steps.seconds() / 60, "answers": asdict(after), "result": result,
    }  # fmt: skip


def _rated(folder: Path, models: Path, seed: int, scale: Scale, model: str) -> Measured:
    """Sample and rate in a new workspace; what an interruption left of one is thrown away."""
    shutil.rmtree(folder, ignore_errors=True)
    workspace = Workspace(rows.fresh_workspace(folder, models)).prepare()
    return begin(workspace, seed, scale, say, model)


def difference(real: Record, control: Record) -> Record:
    """How much more gold the real run reached than a control: paired by prompt, and with finishing taken out."""
    ours, theirs = measured(real["answers"]), measured(control["answers"])
    new, other = ours.by_prompt(), theirs.by_prompt()
    return {
        "seed": real["seed"],
        "control": control["ratings"],
        "gold": asdict(mean_interval([new[prompt] - other[prompt] for prompt in new])),
        "gold_matched": asdict(matched(theirs, ours, real["seed"])),
    }


def differences(found: Sequence[Record]) -> list[Record]:
    """The real run of each seed less each of its controls, where both are there."""
    by_name = {(row["seed"], row["ratings"]): row for row in found}
    return [
        difference(row, by_name[row["seed"], control])
        for row in found
        if row["ratings"] == "real"
        for control in rows.CONTROLS
        if (row["seed"], control) in by_name
    ]


def means(found: Sequence[Record]) -> Record:
    """The mean gain of each kind over its seeds; with so few seeds, no interval."""
    kinds = {kind: [row for row in found if row["ratings"] == kind] for kind in rows.KINDS}
    return {
        kind: {
            "seeds": len(own),
            "gold_gain": statistics.fmean(row["gold"][0]["gain"] for row in own),
            "published": sum(row["state"] == "published" for row in own),
        }
        for kind, own in kinds.items()
        if own
    }


def table_row(row: Record) -> list[Any]:
    """A row of the printed table."""
    gold, alike = row["gold"][0], row["gold_matched"]
    return [
        row["seed"], row["ratings"], gold["before"], gold["after"], gold["gain"], *gold["interval"], alike["mean"],
        alike["low"], alike["high"], row["finished_before"], row["finished_after"], row["kl"], row["state"],
        row["minutes"],
    ]  # fmt: skip


def difference_row(found: Record) -> list[Any]:
    """A row of the second table."""
    gold, alike = found["gold"], found["gold_matched"]
    return [
        found["seed"], found["control"], gold["mean"], gold["low"], gold["high"], gold["n"], alike["mean"],
        alike["low"], alike["high"],
    ]  # fmt: skip


def say(text: str) -> None:
    """Narration."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    options = measuring.parser(__doc__)
    rows.add_options(options, "demo_controls", "0,1,2")
    options.add_argument("--steps", type=int, default=Scale.steps, help=f"of the policy (default {Scale.steps})")
    options.add_argument(
        "--rated-prompts", type=int, default=Scale.rated_prompts, help="a language, as the demo has it"
    )
    options.add_argument("--model", default="smollm2", help="of the trainer and the engine (default smollm2)")
    chosen = options.parse_args()
    models = measuring.prepare(chosen).models
    scale = Scale(rated_prompts=chosen.rated_prompts, steps=chosen.steps)
    setting = {"model": chosen.model, **asdict(scale)}
    kept = rows.Kept(chosen.work, setting)
    found, failures = [], 0
    for seed in chosen.seeds:
        for kind in rows.KINDS:
            name = f"{seed}/{kind}"
            if not rows.wanted(name, chosen.only):
                continue
            say(f"seed {seed}, {kind} ratings")
            folder = chosen.work / f"seed-{seed}"
            try:
                found.append(kept.row(name, lambda f=folder, s=seed, k=kind: run(f, models, s, k, scale, chosen.model)))
            except rows.CommandFailed as error:
                say(f"{name}: {error}; it is tried again the next time")
                failures += 1
    apart = differences(found)
    result = {
        "environment": measuring.environment(), "setting": setting, "means": means(found), "differences": apart,
        "rows": found,
    }  # fmt: skip
    measuring.finish("demo_controls", result, HEAD, [table_row(row) for row in found], chosen)
    if apart and not chosen.json:
        print()
        print(measuring.table(DIFFERENCE_HEAD, [difference_row(one) for one in apart]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    rows.interruptible(main)
