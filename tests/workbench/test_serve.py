"""`workbench serve`: the app in a browser, for whoever has the address with its token alone."""

from __future__ import annotations

import asyncio
import builtins
import io
import socket

import aiohttp
import pytest
from click.testing import CliRunner
from PIL import Image

from docs.browser import CHROMIUM, browser, served
from storage import settings
from storage.database import open_database, read_database
from storage.errors import UsageError
from storage.workspace import Workspace
from workbench.cli import cli
from workbench.commands.serve import serve
from workbench.shell import session

TYPED = "Pourquoi le ciel est-il bleu ?"


@pytest.fixture
def quiet(workspace: Workspace) -> Workspace:
    """A workspace whose model is not there: the app starts an engine, which loads nothing."""
    with open_database(workspace) as database:
        session.save(database, session.Session(model=str(workspace.root / "no-model"), rater="r"))
    return workspace


def draft(workspace: Workspace) -> str:
    with read_database(workspace) as database:
        return settings.get(database, "left-1", {}).get("draft", "")


async def test_with_the_token_there_is_an_app_and_without_it_nothing(quiet: Workspace):
    async with served(quiet) as told, aiohttp.ClientSession() as client:
        url, root = told["url"], f"http://127.0.0.1:{told['port']}/"
        async with client.get(url) as page:
            assert page.status == 200
            assert "https://" not in await page.text()  # nothing is asked of another machine
            assert page.headers["Referrer-Policy"] == "no-referrer"
        async with client.get(f"{url}static/js/textual.js") as script:
            assert script.status == 200
        async with client.get(f"{url}static/%2e%2e/server.py") as other:
            assert other.status == 404
        wrong = told["token"][:-1] + ("A" if told["token"][-1] != "A" else "B")
        for place in ("", "ws", f"?token={told['token']}", "static/js/textual.js", f"{wrong}/", f"{wrong}/ws", "%ff/"):
            async with client.get(f"{root}{place}") as refused:
                assert refused.status == 403, place
        for place in ("ws", f"{wrong}/ws", "/ws"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await client.ws_connect(f"{root}{place}")
            assert refusal.value.status == 403
        async with client.ws_connect(f"{url}ws?width=80&height=24") as page:
            seen = b""
            async with asyncio.timeout(60):
                while b"rite a prompt" not in seen:
                    seen += (await page.receive()).data
                await page.send_json(["focus"])
                await page.send_json(["stdin", f"\x1b[200~{TYPED}\x1b[201~"])
                while draft(quiet) != TYPED:
                    await asyncio.sleep(0.1)
    with socket.socket() as again, pytest.raises(ConnectionRefusedError):
        again.connect(("127.0.0.1", told["port"]))


async def test_only_this_machine_can_connect(quiet: Workspace):
    others = {one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    async with served(quiet) as told:
        for address in others:
            with socket.socket() as outside:
                outside.settimeout(2)
                assert outside.connect_ex((address, told["port"])) != 0


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
async def test_a_browser_shows_the_app_and_types_into_it(quiet: Workspace):
    async with served(quiet) as told, browser() as page:
        await page.open(told["url"])
        colours: set[object] = set()
        async with asyncio.timeout(60):
            while len(colours) < 20:  # a page that is painted, and not a blank one
                colours = set(Image.open(io.BytesIO(await page.picture())).convert("RGB").resize((120, 72)).tobytes())
            await page.until("document.activeElement.tagName === 'TEXTAREA'")  # whoever opens the page can type
            await page.write(TYPED)
            while draft(quiet) != TYPED:
                await asyncio.sleep(0.1)


def test_a_port_that_is_taken_is_said(workspace: Workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(UsageError, match=f"cannot listen on port {port}"):
            serve.main(["--port", port, "--workspace", str(workspace.root)], standalone_mode=False)


def test_without_the_extra_its_name_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    usual = builtins.__import__

    def without(name: str, *more: object):
        if name == "workbench.serving.server":
            raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")
        return usual(name, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    found = CliRunner().invoke(cli, ["serve", "--workspace", str(workspace.root)])
    assert isinstance(found.exception, UsageError)
    assert "alignment-workbench[serve]" in found.exception.hint
