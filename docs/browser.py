"""A page in a headless Chromium, spoken to over its DevTools protocol; and the picture of the app in a browser.

python -m docs.browser FILE.png
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from storage.database import open_database
from storage.workspace import Workspace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZE = (1200, 720)
START_SECONDS = 30.0


class Page:
    """One page of a browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count()

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(answer["error"]["message"])
                return answer["result"]

    async def value(self, expression: str) -> Any:
        """What an expression is worth on the page."""
        return (await self.ask("Runtime.evaluate", expression=expression))["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait for a state of the page."""
        async with asyncio.timeout(START_SECONDS):
            while not await self.value(expression):
                await asyncio.sleep(0.05)

    async def open(self, url: str) -> None:
        """Go to an address, and wait until an app has drawn there."""
        await self.ask("Page.navigate", url=url)
        await self.until("document.body.classList.contains('-first-byte')")

    async def write(self, text: str) -> None:
        await self.ask("Input.insertText", text=text)

    async def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode((await self.ask("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A new browser with one page."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                   f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank"]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(profile, "DevToolsActivePort")
            async with asyncio.timeout(START_SECONDS):
                while not (told.exists() and told.read_text().count("\n")):
                    await asyncio.sleep(0.05)
            port = told.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                    pages = [one for one in await listed.json() if one["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            process.terminate()
            process.wait()


@asynccontextmanager
async def served(workspace: Workspace) -> AsyncIterator[dict[str, Any]]:
    """`workbench serve` on a workspace, with what it prints, until the end."""
    command = [sys.executable, "-m", "workbench", "serve", "--port", "0", "--json", "--workspace", str(workspace.root)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            printed = await process.stdout.readuntil(b"}")
        yield json.loads(printed)
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


async def _take(file: Path) -> None:
    from docs.invented import furnish

    with tempfile.TemporaryDirectory() as place:
        os.environ["HOME"] = place
        workspace = Workspace(Path(place) / "dialects").prepare()
        with open_database(workspace) as database:
            furnish(database)
        async with served(workspace) as told, browser() as page:
            await page.open(told["url"])
            await asyncio.sleep(3)  # the app is drawn, and has read its workspace
            await page.ask("Input.dispatchKeyEvent", type="keyDown", key="F2", windowsVirtualKeyCode=113)
            await asyncio.sleep(2)
            file.write_bytes(await page.picture())


if __name__ == "__main__":
    asyncio.run(_take(Path(sys.argv[1])))
