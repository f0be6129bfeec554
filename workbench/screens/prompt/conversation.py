"""Prompts on their way to the engine and answers on their way back, as a state machine without a screen.

One request is with the engine at a time; the others wait. When the engine dies, its request goes back to the head of
the queue, so that nothing typed is ever lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from storage.records import Prompt, Sample
from workbench.engine import protocol
from workbench.engine.protocol import Answer, Generate


@dataclass(frozen=True)
class Ask:
    """One prompt to be answered, as it was when it was sent."""

    prompt: Prompt
    generate: Generate


@dataclass
class Exchange:
    """One prompt and what has been said to it so far. `state` is waiting, writing, done or failed."""

    ask: Ask
    state: str = "waiting"
    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    speed: float | None = None
    error: str = ""
    samples: list[Sample] = field(default_factory=list)  # the stored answers, once they are stored

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was said: the request is sent anew."""
        count = self.ask.generate.count
        self.texts, self.tokens, self.answers = [""] * count, [0] * count, {}


class Conversation:
    """The exchange on screen, and the prompts that wait behind it."""

    def __init__(self) -> None:
        self.waiting: deque[Ask] = deque()
        self.current: Exchange | None = None

    @property
    def is_writing(self) -> bool:
        return self.current is not None and self.current.state == "writing"

    def ask(self, ask: Ask) -> None:
        """Put a prompt at the end of the queue."""
        self.waiting.append(ask)

    def next_request(self) -> Generate | None:
        """What to send now that the engine is free: takes the head of the queue. None when there is nothing."""
        if self.is_writing or not self.waiting:
            return None
        self.current = Exchange(self.waiting.popleft(), "writing")
        return self.current.ask.generate

    def hear(self, event: protocol.Event) -> bool:
        """Take an event of the engine; returns whether it belonged to the exchange on screen."""
        now = self.current
        if now is None or getattr(event, "request", None) != now.ask.generate.request or now.state != "writing":
            return False
        match event:
            case protocol.Text(candidate=n, text=text, tokens=tokens):
                now.texts[n] += text
                now.tokens[n] = tokens
            case protocol.Answer(candidate=n, text=text, token_ids=ids):
                now.answers[n], now.texts[n], now.tokens[n] = event, text, len(ids)
            case protocol.Done(tokens_per_second=speed):
                now.state, now.speed = "done", speed
            case protocol.Failed(error=error):
                now.state, now.error = "failed", error
        return True

    def engine_died(self) -> None:
        """The engine is gone: its request waits again, first in the queue."""
        if self.current is not None and self.current.state == "writing":
            self.waiting.appendleft(self.current.ask)
            self.current.clear()
            self.current.state = "waiting"
