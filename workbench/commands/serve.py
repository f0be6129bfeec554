"""`workbench serve`: the app in a browser on this machine."""

from __future__ import annotations

import sys

import click

from storage.command_line import works_on
from storage.errors import UsageError
from storage.workspace import Workspace
from workbench.commands.options import json_option, print_json, say, workspace_option


@click.command()
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes one that is free."
)
@json_option
@workspace_option
def serve(port: int, as_json: bool, workspace: str | None) -> None:
    """Serve the app to a browser on this machine, and print the address, until ^C.

    The address has a token in it that is made anew each time: whoever has it can do what the app can, and without it
    everything is refused. Nobody else on the network can connect; from elsewhere, forward the port over SSH. Each page
    that is open is an app of its own, with an engine of its own.

    \b
    Example:
      workbench serve --port 0
    """
    try:
        from workbench.serving.server import WorkbenchServer, listen
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the web server is not installed: there is no {error.name}",
            "it is the extra `serve`: pip install 'alignment-workbench[serve]'",
        ) from error
    place = works_on(Workspace.locate(workspace))
    listening = listen(port)
    if not place.database.exists():
        place.prepare()
    server = WorkbenchServer(place, listening)
    if as_json:
        print_json({"url": server.url, "port": server.port, "token": server.token})
    else:
        click.echo(server.url)
    sys.stdout.flush()
    say("open this address in a browser; ^C ends it")
    server.serve()
