"""`workbench versions`, `publish` and `rollback`: which weights exist, and which are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from storage import versions
from storage.feedback import winning
from storage.feedback.winning import WinRate
from storage.records import Version
from workbench.commands.options import json_option, opened, print_json, print_table, reading, say, workspace_option


@click.command("versions")
@json_option
@workspace_option
def versions_command(as_json: bool, workspace: str | None) -> None:
    """List the versions of the weights, newest first. v0 is the untouched base model; * marks the served one.

    "won" is how often a version's answers were preferred, blind, to those of what was served before it (of its parent,
    where it is not served), with an interval that holds however often one looks, and the number of pairs. --json has
    them all: by the version they were compared with, overall, on held-out prompts, and by language.

    \b
    Examples:
      workbench versions
      workbench versions --json | jq '.[0].metrics'
    """
    with reading(workspace) as (_, database):
        every, served, rates = versions.every(database), versions.served(database), winning.win_rates(database)
        lost = winning.lost(rates, served, versions.served_before(database))
    name = served.name if served else None
    if as_json:
        print_json([describe(version, name, rates) for version in every])
        return
    print_table(
        ["", "version", "parent", "state", "won", "step", "gates", "base model", "created at"],
        [
            ("*" if version.name == name else "", version.name, version.parent, _state(version), _won(version, rates),
             version.step, _gates(version), version.base_model, version.created_at[:19])
            for version in every
        ],
    )  # fmt: skip
    if lost is not None:
        say(f"{lost.version} lost to {lost.against}, {lost.short} blind pairs: `workbench rollback` goes back to it")
    if not every:
        say("no version yet: the first one appears when a model is loaded")


@click.command()
@click.argument("version", metavar="VERSION")
@click.option("--reason", default="", help="Kept with the event.")
@click.option("--if-won", type=click.FloatRange(0, 1), metavar="RATE",
              help="Only where its win rate against its parent is surely above this, such as 0.5.")  # fmt: skip
@json_option
@workspace_option
def publish(version: str, reason: str, if_won: float | None, as_json: bool, workspace: str | None) -> None:
    """Serve VERSION from now on. Its file is checked first; a running app swaps to it without a restart.

    \b
    Examples:
      workbench publish v3
      workbench publish v3 --if-won 0.5
      workbench publish v2 --reason "v3 forgot its Swahili"
    """
    with opened(workspace) as (place, database):
        if if_won is not None:
            winning.require(database, versions.get(database, version), if_won)
        _tell(versions.publish(database, place, version, reason), as_json)


@click.command()
@click.option("--reason", default="", help="Kept with the event.")
@json_option
@workspace_option
def rollback(reason: str, as_json: bool, workspace: str | None) -> None:
    """Go back to the version that was served before, after checking its file. No version is deleted.

    \b
    Example:
      workbench rollback --reason "answers grew too long"
    """
    with opened(workspace) as (place, database):
        _tell(versions.rollback(database, place, reason), as_json)


def describe(version: Version, served: str | None, rates: Sequence[WinRate] = ()) -> dict[str, Any]:
    """A version as the JSON of the commands tells it."""
    return {
        "version": version.name,
        "parent": version.parent,
        "state": version.state,
        "job": version.job_id,
        "step": version.step,
        "metrics": version.metrics,
        "created_at": version.created_at,
        "served": version.name == served,
        "kind": version.kind,
        "base_model": version.base_model,
        "gates": version.gates,
        "win_rates": [msgspec.to_builtins(rate) for rate in rates if rate.version == version.name],
    }


def _tell(now_served: Version, as_json: bool) -> None:
    if as_json:
        print_json(describe(now_served, now_served.name))
    say(f"{now_served.name} is served now")


def _state(version: Version) -> str:
    """The state; of a control only that it is one."""
    return "control" if version.metrics.get("control") else str(version.state)


def _won(version: Version, rates: Sequence[WinRate]) -> str | None:
    rate = winning.headline(rates, version)
    return None if rate is None else rate.short


def _gates(version: Version) -> str | None:
    if not version.gates:
        return None
    return f"{sum(bool(gate.get('passed')) for gate in version.gates)} of {len(version.gates)} passed"
