"""Prompts on their way to the engine and answers on their way back, as a state machine without a screen.

One request is with the engine at a time; the others wait. When the engine ends, its request goes back to the head of
the queue, with the answers it has; but a prompt is sent at most `SENDINGS` times. One that was with the engine each
time that it ended is set aside: it may well be what ends it. So every prompt ends up answered, failed, set aside or
dropped, and nothing typed is ever lost: the text of each is in the history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from storage import clock
from storage.records import Message, Prompt, Sample, Sampling
from workbench.engine import protocol
from workbench.engine.protocol import Answer, Generate

SENDINGS = 2  # how often a prompt is sent when the engine ends each time


class Place(msgspec.Struct, frozen=True):
    """Where a prompt stands: after which turns of a conversation, in which language and under which system prompt."""

    language: str
    system: str = ""
    earlier: tuple[Message, ...] = ()

    @classmethod
    def of(cls, prompt: Prompt) -> Place:
        return cls(prompt.language, prompt.system, prompt.earlier)


@dataclass
class Draft:
    """What stands in the prompt field. `of` is the earlier prompt that it came from: asked again, it is that one.

    `place` is where it is to be asked; None where that follows from what is on screen when it is sent.
    """

    text: str = ""
    of: Prompt | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Ask:
    """One prompt to be answered, as it was when it was sent."""

    prompt: Prompt
    generate: Generate


@dataclass
class Exchange:
    """One prompt and what has been said to it so far.

    `state` is waiting, writing, or one of the ends: done, failed, aside (set aside) and dropped.
    """

    ask: Ask
    state: str = "waiting"
    sent: int = 0  # how often
    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)  # of the weights that each text comes from
    answers: dict[int, Answer] = field(default_factory=dict)
    speed: float | None = None
    error: str = ""
    note: str = ""  # what was not asked as it stands
    samples: dict[int, Sample] = field(default_factory=dict)  # the stored answers by candidate, once they are stored
    chosen: int | None = None  # the answer that one goes on from
    goes_on: bool = False  # whether what is written next goes on from here: from the first choice in a conversation on

    @classmethod
    def answered(cls, prompt: Prompt, stored: Sequence[Sample]) -> Exchange:
        """A prompt with answers that were stored earlier."""
        first = stored[0]
        asked = Generate(
            clock.new_id(), prompt.text, prompt.system, len(stored), max(0, (first.seed or 0) - first.position),
            first.sampling or Sampling(), earlier=prompt.earlier,
        )  # fmt: skip
        exchange = cls(Ask(prompt, asked), state="done", samples=dict(enumerate(stored)))
        for n, sample in enumerate(stored):
            ids = sample.token_ids or []
            exchange.texts[n], exchange.tokens[n] = sample.text, len(ids)
            exchange.answers[n] = Answer(
                asked.request, n, sample.text, ids, sample.finish_reason, sample.version or sample.origin,
                sample.seed or 0, sample.left_out,
            )  # fmt: skip
        return exchange

    def __post_init__(self) -> None:
        self.goes_on = self.goes_on or bool(self.ask.prompt.earlier)
        count = self.ask.generate.count
        self.texts, self.tokens, self.versions = [""] * count, [0] * count, [""] * count

    @property
    def is_under_way(self) -> bool:
        return self.state in ("waiting", "writing")

    def after(self, answer: int) -> Place:
        """Where one stands who goes on from one of its answers."""
        prompt = self.ask.prompt
        said = (Message("user", prompt.text), Message("assistant", self.texts[answer]))
        return Place(prompt.language, prompt.system, (*prompt.earlier, *said))

    def begin(self) -> None:
        """It is sent, perhaps again: answers that are whole stay, the others begin anew."""
        self.state, self.sent = "writing", self.sent + 1
        for n in range(len(self.texts)):
            if n not in self.answers:
                self.texts[n], self.tokens[n], self.versions[n] = "", 0, ""

    def hear(self, event: protocol.Event) -> None:
        """Take an event of this request; what is whole already is not said anew."""
        match event:
            case protocol.Text(candidate=n) if n not in self.answers:
                self.texts[n] += event.text
                self.tokens[n], self.versions[n] = event.tokens, event.version
            case protocol.Answer(candidate=n, text=text, token_ids=ids) if n not in self.answers:
                self.answers[n], self.texts[n], self.tokens[n] = event, text, len(ids)
            case protocol.Done(tokens_per_second=speed, note=note):
                self.state, self.speed, self.note = "done", speed, note
            case protocol.Failed(error=error):
                self.state, self.error = "failed", error

    def end(self, state: str, error: str = "") -> None:
        """It is not sent again: what was said stands as answers that were cancelled, where the weights are known."""
        self.state, self.error = state, error
        asked = self.ask.generate
        for n, (text, version) in enumerate(zip(self.texts, self.versions, strict=True)):
            if text and version and n not in self.answers:
                self.answers[n] = Answer(asked.request, n, text, [], "cancelled", version, asked.seed + n)


class Conversation:
    """The exchange on screen, the prompts that wait behind it, and those that were set aside."""

    def __init__(self) -> None:
        self.waiting: deque[Exchange] = deque()
        self.aside: list[Exchange] = []
        self.current: Exchange | None = None

    @property
    def is_writing(self) -> bool:
        return self.current is not None and self.current.state == "writing"

    @property
    def unanswered(self) -> list[Exchange]:
        """The one that is being answered and those that wait, oldest first."""
        writing = [self.current] if self.current is not None and self.is_writing else []
        return [*writing, *self.waiting]

    @property
    def is_awaited(self) -> bool:
        """Whether an answer is being written that one goes on from."""
        return self.current is not None and self.current.goes_on and self.current.is_under_way

    def choose(self, answer: int) -> Place | None:
        """Go on from an answer to what is on screen; None where there is no such answer."""
        now = self.current
        if now is None or now.is_under_way or answer not in now.answers:
            return None
        now.chosen, now.goes_on = answer, True
        return now.after(answer)

    def leave(self) -> None:
        """What is written next begins a conversation of its own. What is being written stays on screen."""
        if self.is_writing and self.current is not None:
            self.current.goes_on = False
        else:
            self.current = None

    def ask(self, ask: Ask) -> None:
        """Put a prompt at the end of the queue."""
        self.waiting.append(Exchange(ask))

    def next_request(self) -> Generate | None:
        """What to send now that the engine is free: takes the head of the queue. None when there is nothing."""
        if self.is_writing or not self.waiting:
            return None
        self.current = self.waiting.popleft()
        self.current.begin()
        return self.current.ask.generate

    def hear(self, event: object) -> bool:
        """Take an event of the engine; returns whether it belonged to the exchange on screen."""
        now = self.current
        if now is None or getattr(event, "request", None) != now.ask.generate.request or now.state != "writing":
            return False
        now.hear(event)  # type: ignore[arg-type]  # what has a request is an event of the protocol
        return True

    def engine_ended(self) -> Exchange | None:
        """The engine is gone: its request waits again, first in the queue. Returns it if it is set aside instead."""
        now = self.current
        if now is None or now.state != "writing":
            return None
        if now.sent < SENDINGS:
            now.state = "waiting"
            self.waiting.appendleft(now)
            return None
        now.end("aside", f"the engine ended {SENDINGS} times while it answered this")
        self.aside.append(now)
        return now

    def drop(self) -> list[Exchange]:
        """Drop the prompts that wait, and forget those that were set aside. Returns the dropped ones, oldest first."""
        dropped = list(self.waiting)
        self.waiting.clear()
        self.aside.clear()
        for exchange in dropped:
            exchange.end("dropped")
        return dropped

    def close(self) -> list[Exchange]:
        """Nothing is sent any more. Returns what was under way or waiting, oldest first."""
        under_way = [self.current] if self.current is not None and self.current.state == "writing" else []
        for exchange in under_way:
            exchange.end("dropped")
        return [*under_way, *self.drop()]
