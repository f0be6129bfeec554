"""`workbench chat`: a conversation without the app, line by line; what is asked and said is stored as the app does."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from storage import clock, conversations
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.records import Message, Prompt, Sampling
from storage.wording import counted
from workbench.commands.options import language_option, opened, say, workspace_option
from workbench.commands.sampling import Asker, described
from workbench.engine.client import EngineClient
from workbench.engine.protocol import Cancel, Generate, Load, Text
from workbench.engine.recording import store_answers
from workbench.text import UNSAFE, one_line, safe_text

INTERRUPTED = 130
DEFAULTS = Sampling()
HELP = "/new begins a new conversation, /again asks the last question again with a fresh seed, // sends a line with a /"


@click.command()
@click.option("--language", default="und", show_default=True, help="BCP 47 tag of what is asked.")
@click.option("--system", default="", help="System prompt.")
@click.option("--max-new-tokens", default=DEFAULTS.max_new_tokens, show_default=True)
@click.option("--temperature", default=DEFAULTS.temperature, show_default=True, help="0 is greedy.")
@click.option("--top-p", default=DEFAULTS.top_p, show_default=True)
@click.option("--top-k", default=DEFAULTS.top_k, show_default=True, help="0 keeps the whole vocabulary.")
@click.option("--seed", type=int, help="Of the first answer; each further one has the next. Default: fresh ones.")
@click.option(
    "--model", default=Load().model, show_default=True, help="smollm2, gemma, a folder, a GGUF file or a hub name."
)
@click.option("--version", help="Talk to this version, without serving it.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True, help="auto, bf16, fp16 or fp32.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one JSON object a line.")
@workspace_option
def chat(
    language: str,
    system: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int | None,
    model: str,
    version: str | None,
    device: str,
    dtype: str,
    as_json: bool,
    workspace: str | None,
) -> int:
    """Talk to a model, a line a turn, from standard input.

    Each line is asked after the turns before it. A line /new begins a new conversation, /again asks the last question
    again with a fresh seed. Ctrl-C stops an answer, and keeps what was said; the end of the input ends the chat.

    With --json, standard output has one object a line, told apart by `event`: ready, text, answer, new, note, error.

    \b
    Examples:
      workbench chat --language es --system "Responde en una frase."
      printf 'What is a glacier?\\nAnd a fjord?\\n' | workbench chat --json
    """
    language = language_option(language)
    try:
        sampling = Sampling(temperature, top_p, top_k, max_new_tokens)
        if seed is not None:
            Generate("", "", seed=seed)
    except ValueError as error:
        raise UsageError(str(error), "see `workbench chat --help`") from error
    from storage import versions

    with opened(workspace, create=True) as (place, database):
        if version:
            versions.get(database, version)  # an unknown name is told before a model is loaded
        talk = Chat(EngineClient(place), Load(model, version, device, dtype), database, Teller(as_json))
        return asyncio.run(talk.run(Turns(language, system, sampling, seed)))


class Turns:
    """A conversation so far, and how the next question is asked."""

    def __init__(self, language: str, system: str, sampling: Sampling, seed: int | None) -> None:
        self.language = language
        self.system = system
        self.sampling = sampling
        self.seed = seed
        self.earlier: tuple[Message, ...] = ()
        self.asked: str | None = None  # the last question, and what was answered to it
        self.said: str | None = None

    def new(self) -> None:
        self.earlier, self.asked, self.said = (), None, None

    def go_on(self) -> None:
        """What was said last stands before what is asked next."""
        if self.asked is not None and self.said is not None:
            self.earlier += (Message("user", self.asked), Message("assistant", self.said))
        self.asked = self.said = None

    def request(self) -> Generate:
        """The question, with a seed that none before it had."""
        seed = secrets.randbelow(2**31) if self.seed is None else self.seed
        self.seed = None if self.seed is None else self.seed + 1
        return Generate(
            clock.new_id(), self.asked or "", self.system, seed=seed, sampling=self.sampling, earlier=self.earlier
        )


class Teller:
    """What the chat says: answers on standard output, all else on standard error; or events as lines of JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.streams = as_json or sys.stdout.isatty()

    def event(self, event: str, **fields: Any) -> None:
        """A line of JSON. Control characters in it are escaped."""
        if self.as_json:
            line = json.dumps({"event": event, **fields}, ensure_ascii=False)
            click.echo(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line))

    def narrate(self, text: str) -> None:
        self.event("note", text=text)
        if not self.as_json:
            say(text)

    def text(self, event: Text) -> None:
        self.event("text", text=event.text)
        if not self.as_json:
            click.echo(safe_text(event.text), nl=False)

    def answer(self, told: dict[str, Any]) -> None:
        self.event("answer", **told)
        if not self.as_json:
            click.echo("" if self.streams else safe_text(told["text"]))
            say(f"  [{one_line(told['version'])} · {counted(told['tokens'], 'token')} · {told['finish_reason']}]")

    def error(self, error: WorkbenchError) -> None:
        self.event("error", error=error.message, hint=error.hint)
        if not self.as_json:
            say(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))

    def invite(self) -> None:
        if not self.as_json and sys.stdin.isatty():
            click.echo("▸ ", nl=False, err=True)


class Chat:
    """One engine, one conversation at a time."""

    def __init__(self, client: EngineClient, load: Load, database: Database, teller: Teller) -> None:
        self.client = client
        self.database = database
        self.teller = teller
        self.asker = Asker(client, load, teller.narrate)
        self.under_way: str | None = None  # the request that is being answered
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.interrupted = False

    async def run(self, turns: Turns) -> int:
        """Returns the exit code: 1 where something could not be answered, 130 where it was interrupted.

        Raises:
            WorkbenchError: no model can be loaded, or the engine does not come back.
        """
        failed = False
        async with self.client:
            ready = await self.asker.load()
            self.teller.event("ready", model=ready.model, version=ready.version, context=ready.context)
            if sys.stdin.isatty():
                self.teller.narrate(f"{ready.model} {ready.version}. {HELP}.")
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, self._interrupt)
            threading.Thread(target=_read_lines, args=(loop, self.lines.put_nowait), daemon=True).start()
            try:
                while True:
                    self.teller.invite()
                    if (line := await self.lines.get()) is None:
                        break
                    try:
                        await self._take(line, turns)
                    except WorkbenchError as error:
                        if not self.client.running:
                            raise
                        failed = True
                        self.teller.error(error)
            finally:
                loop.remove_signal_handler(signal.SIGINT)
        return INTERRUPTED if self.interrupted else int(failed)

    def _interrupt(self) -> None:
        """Stop the answer under way; where there is none, end."""
        if self.under_way is not None:
            asyncio.ensure_future(self.client.send(Cancel(self.under_way)))  # noqa: RUF006  # it ends at once
        else:
            self.interrupted = True
            self.lines.put_nowait(None)

    async def _take(self, line: bytes, turns: Turns) -> None:
        """One line: a command, or what is asked next."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"a line is not UTF-8: {error}", "send it as UTF-8; the conversation goes on") from error
        match text.strip():
            case "":
                return
            case "/new":
                turns.new()
                self.teller.event("new")
                return
            case "/again":
                if turns.asked is None:
                    raise UsageError("nothing was asked yet", "ask something first")
            case command if command.startswith("/") and not command.startswith("//"):
                raise UsageError(f"there is no command {one_line(command, 40)}", HELP)
            case _:
                turns.go_on()
                turns.asked = text[1:] if text.startswith("//") else text
        await self._ask(turns)

    async def _ask(self, turns: Turns) -> None:
        """Ask, and store the question with what was answered. Without an answer it was not asked."""
        request = turns.request()
        self.under_way = request.request
        try:
            answers = await self.asker.answers(request, self.teller.text if self.teller.streams else None)
        finally:
            self.under_way = None
        if not answers:
            self.teller.narrate("stopped before anything was said")
            return
        prompt, (sample,) = self._stored(turns, request, answers)
        turns.said = sample.text
        turn = 1 + sum(message.role == "user" for message in turns.earlier)
        self.teller.answer({"prompt": prompt.text, "language": prompt.language, "turn": turn, **described(sample)})

    def _stored(self, turns: Turns, request: Generate, answers: list[Any]) -> tuple[Prompt, list[Any]]:
        with self.database.transaction():
            prompt = conversations.add(
                self.database, request.prompt, language=turns.language, system=request.system, earlier=request.earlier
            )
            return prompt, store_answers(self.database, prompt.id, answers, request.sampling, request.request)


def _read_lines(loop: asyncio.AbstractEventLoop, put: Callable[[bytes | None], None]) -> None:
    """Hand over the lines of standard input, and None at its end. It reads what the system gives: a thread that waits
    in Python's own reader would be in the way when the program ends."""
    rest = b""
    try:
        while chunk := os.read(0, 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                loop.call_soon_threadsafe(put, line.removesuffix(b"\r"))
        if rest:
            loop.call_soon_threadsafe(put, rest)
        loop.call_soon_threadsafe(put, None)
    except OSError:
        loop.call_soon_threadsafe(put, None)
    except RuntimeError:  # the chat has ended meanwhile
        return
