"""Asking an engine from a command: a model is loaded, and answers come back; what is worth knowing is narrated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from storage.errors import WorkbenchError
from storage.records import Sample
from workbench.engine.client import EngineClient, EngineDied
from workbench.engine.protocol import Answer, Done, Failed, Generate, Load, Progress, Ready, Text
from workbench.text import one_line


class Asker:
    """One engine of a command."""

    def __init__(
        self,
        client: EngineClient,
        load: Load,
        narrate: Callable[[str], None],
    ) -> None:
        self.client = client
        self._load = load
        self._narrate = narrate
        self._shown = ""

    async def load(self) -> Ready:
        """Load the model. Raises WorkbenchError."""
        async for event in self.client.load(self._load):
            match event:
                case Progress():
                    self._show(event)
                case Ready():
                    return event
                case Failed(during="swap", error=error, hint=hint):
                    self._narrate(f"the base model answers, for the served version cannot: {error} ({hint})")
                case Failed() | EngineDied():
                    raise WorkbenchError(event.error, event.hint)
        raise WorkbenchError("the engine was closed", "start it again")

    def _show(self, event: Progress) -> None:
        """Long work under way: on a terminal with its share done, on one line."""
        if event.fraction is None or not sys.stderr.isatty():
            if event.text != self._shown:
                self._narrate(event.text)
            self._shown = event.text
        else:
            end = "\n" if event.fraction >= 1 else ""
            click.echo(f"\r{one_line(event.text, 60)} {event.fraction:4.0%} {end}", err=True, nl=False)

    async def answers(
        self,
        request: Generate,
        on_text: Callable[[Text], None] | None = None,
        on_answer: Callable[[Answer], None] = lambda answer: None,
    ) -> list[Answer]:
        """Sample once, and once more when the engine died of it: `on_answer` may then hear of an answer twice.

        Raises:
            WorkbenchError: the model cannot answer, or the engine died twice.
        """
        for last_attempt in (False, True):
            answers: list[Answer] = []
            async for event in self.client.generate(request):
                match event:
                    case Text() if on_text:
                        on_text(event)
                    case Answer():
                        answers.append(event)
                        on_answer(event)
                    case Done(note=note):
                        if note:
                            self._narrate(note)
                        return answers
                    case Failed(error=error, hint=hint):
                        raise WorkbenchError(error, hint)
                    case EngineDied(error=error, hint=hint):
                        if last_attempt:
                            raise WorkbenchError(error, hint)
                        self._narrate(f"\n{error}; it is started again ({hint})")
            await self.client.start()
            await self.load()
        raise AssertionError("the second attempt returns or raises")


def described(sample: Sample) -> dict[str, Any]:
    """A stored answer as the commands print it."""
    return {
        "text": sample.text,
        "sample": sample.id,
        "version": sample.version,
        "tokens": len(sample.token_ids or ()),
        "finish_reason": sample.finish_reason,
        "seed": sample.seed,
        "left_out": sample.left_out,
    }
