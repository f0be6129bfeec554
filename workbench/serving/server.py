"""Textual's web server behind a token: every address under it begins with the token, the websocket's too.

Each page that is open has an app of its own, a child process that talks to the page through this server.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from storage.errors import UsageError
from storage.workspace import Workspace
from workbench.serving.browser import DRIVER

HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; connect-src 'self' ws:",
    "Referrer-Policy": "no-referrer",  # the address is the key
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
CLOSING_SECONDS = 10.0  # how long apps may take to keep what is half written
_PAGE = Path(__file__).with_name("page.html")


def listen(port: int) -> socket.socket:
    """A socket on the loopback; port 0 takes one that is free. Raises UsageError: the port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on port {port}: {error.strerror}", "--port 0 takes one that is free"
        ) from error
    return listening


class WorkbenchServer(Server):
    """Serves the app on one workspace at `url`; everything else is refused with 403."""

    def __init__(self, workspace: Workspace, listening: socket.socket) -> None:
        self.listening = listening
        self.token = secrets.token_urlsafe(32)
        app = [sys.executable, "-m", "workbench", "--workspace", str(workspace.root)]
        super().__init__(
            f"TEXTUAL_DRIVER={DRIVER} exec {shlex.join(app)}", HOST, listening.getsockname()[1], workspace.name
        )
        self._pages: set[asyncio.Task[object]] = set()

    @property
    def url(self) -> str:
        """The address, with the token in it."""
        return f"{self.public_url}/{self.token}/"

    def serve(self, debug: bool = False) -> None:
        """Serve until the process is interrupted; then the apps close, and keep what they are at."""
        web.run_app(self._make_app(), sock=self.listening, access_log=None, print=None, shutdown_timeout=1.0)

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._with_token])
        app.add_routes([
            web.get("/{token}/", self.handle_index),
            web.get("/{token}/ws", self.handle_websocket),
            web.get("/{token}/download/{key}", self.handle_download),
            web.get("/{token}/static/{file:.+}", self._static),
        ])  # fmt: skip
        app.on_shutdown.append(self.on_shutdown)
        return app

    @web.middleware
    async def _with_token(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse every request whose address does not begin with the token; nothing else is looked at before."""
        given = request.path.lstrip("/").partition("/")[0]
        if not hmac.compare_digest(given.encode(errors="replace"), self.token.encode()):
            raise web.HTTPForbidden(text="403: open the address that `workbench serve` has printed, token and all\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def handle_index(self, request: web.Request) -> web.StreamResponse:
        """The page, which asks for nothing that is not here."""
        page = _PAGE.read_text(encoding="utf-8").replace("{{ title }}", html.escape(self.title))
        return web.Response(text=page, content_type="text/html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        """A script, a style sheet or a font of Textual's."""
        folder = self.statics_path.resolve()
        path = folder.joinpath(request.match_info["file"]).resolve()
        if not (path.is_relative_to(folder) and path.is_file()):
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One page's app, until the page is closed or the app is left."""
        page = asyncio.current_task()
        assert page is not None
        self._pages.add(page)
        try:
            return await super().handle_websocket(request)
        finally:
            self._pages.discard(page)

    async def on_shutdown(self, app: web.Application) -> None:
        """Close the apps of all pages."""
        pages = set(self._pages)
        for page in pages:
            page.cancel()
        if pages:
            await asyncio.wait(pages, timeout=CLOSING_SECONDS)
