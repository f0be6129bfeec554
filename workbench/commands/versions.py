"""`workbench versions`, `publish` and `rollback`: which weights exist, and which are served."""

from __future__ import annotations

from typing import Any

import click

from storage import versions
from storage.records import Version
from workbench.commands.options import json_option, opened, print_json, print_table, reading, say, workspace_option


@click.command("versions")
@json_option
@workspace_option
def versions_command(as_json: bool, workspace: str | None) -> None:
    """List the versions of the weights, newest first. v0 is the untouched base model; * marks the served one.

    \b
    Examples:
      workbench versions
      workbench versions --json | jq '.[0].metrics'
    """
    with reading(workspace) as (_, database):
        every, served = versions.every(database), versions.served(database)
    name = served.name if served else None
    if as_json:
        print_json([describe(version, name) for version in every])
        return
    print_table(
        ["", "version", "parent", "state", "step", "gates", "base model", "created at"],
        [
            ("*" if version.name == name else "", version.name, version.parent, _state(version), version.step,
             _gates(version), version.base_model, version.created_at[:19])
            for version in every
        ],
    )  # fmt: skip
    if not every:
        say("no version yet: the first one appears when a model is loaded")


@click.command()
@click.argument("version", metavar="VERSION")
@click.option("--reason", default="", help="Kept with the event.")
@json_option
@workspace_option
def publish(version: str, reason: str, as_json: bool, workspace: str | None) -> None:
    """Serve VERSION from now on. Its file is checked first; a running app swaps to it without a restart.

    \b
    Examples:
      workbench publish v3
      workbench publish v2 --reason "v3 forgot its Swahili"
    """
    with opened(workspace) as (place, database):
        _tell(versions.publish(database, place, version, reason), as_json)


@click.command()
@click.option("--reason", default="", help="Kept with the event.")
@json_option
@workspace_option
def rollback(reason: str, as_json: bool, workspace: str | None) -> None:
    """Go back to the parent of the served version, after checking its file. No version is deleted.

    \b
    Example:
      workbench rollback --reason "answers grew too long"
    """
    with opened(workspace) as (place, database):
        _tell(versions.rollback(database, place, reason), as_json)


def describe(version: Version, served: str | None) -> dict[str, Any]:
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
    }


def _tell(now_served: Version, as_json: bool) -> None:
    if as_json:
        print_json(describe(now_served, now_served.name))
    say(f"{now_served.name} is served now")


def _state(version: Version) -> str:
    """The state; of a control only that it is one."""
    return "control" if version.metrics.get("control") else str(version.state)


def _gates(version: Version) -> str | None:
    if not version.gates:
        return None
    return f"{sum(bool(gate.get('passed')) for gate in version.gates)} of {len(version.gates)} passed"
