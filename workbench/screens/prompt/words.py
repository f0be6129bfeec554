"""What Prompt says around the answers: what was asked, how the next prompt is asked, and what waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from textual.content import Content

from storage.wording import counted
from workbench.shell.actions import spoken
from workbench.text import one_line, safe_text
from workbench.widgets.judging import use_of

if TYPE_CHECKING:
    from workbench.engine.status import EngineStatus
    from workbench.screens.prompt.conversation import Conversation, Exchange, Place
    from workbench.shell.session import Session

Keys = Mapping[str, tuple[str, ...]]


def asked(exchange: Exchange, turns: int) -> Content:
    """The prompt that is answered, and how it was asked; numbered where turns stand before it."""
    generate = exchange.ask.generate
    facts = f"T {generate.sampling.temperature:g} · {counted(generate.count, 'answer')}"
    number = f"{turns + 1} " if turns else ""
    left_out = max((answer.left_out for answer in exchange.answers.values()), default=0)
    note = exchange.note or (
        f"the earliest {counted(left_out, 'message was', 'messages were')} left out" if left_out else ""
    )
    return Content.assemble(
        (number, "$text-muted"), (one_line(exchange.ask.prompt.language, 12), "bold $accent"),
        (f"{use_of(exchange.ask.prompt)} ▸ ", "$text-muted"), (safe_text(exchange.ask.prompt.text), "bold"),
        (f"   {facts}", "$text-muted"), (f" · {one_line(note)}" if note else "", "$text-warning"),
    )  # fmt: skip


def where(place: Place, awaited: bool) -> Content:
    """In which language the next prompt is asked, and which turn it is."""
    answers = sum(message.role == "assistant" for message in place.earlier)
    after = f" turn {answers + 1}" if place.earlier else ""
    if awaited:
        after = " after the answer that is being written"
    return Content.assemble((one_line(place.language, 12), "bold $accent"), " ▸", (after, "$text-muted"))


def how(session: Session, place: Place) -> Content:
    """The parameters that the next prompt is asked with."""
    sampling = session.sampling
    parts = [f"T {sampling.temperature:g}", f"top-p {sampling.top_p:g}", f"{sampling.max_new_tokens} tokens",
             counted(session.candidates, "answer")]  # fmt: skip
    if session.seed is not None:
        parts.append(f"seed {session.seed}")
    if place.system:
        parts.append(f"system: {one_line(place.system, 24)}")
    return Content.styled(" · ".join(parts), "$text-muted")


def kept(conversation: Conversation, engine: EngineStatus, keys: Keys, line: Content) -> Content:
    """What was just said, after what waits and why; below it what was set aside."""
    waiting = len(conversation.waiting)
    drops = spoken(keys["prompt.drop"][0])
    if waiting:
        why = "the one before is being answered" if engine.is_ready else f"the engine is {engine.state}"
        queued = f"{counted(waiting, 'prompt')} kept, waiting: {why} ({drops} drops)"
        line = Content("   ").join([Content.styled(queued, "$text-warning"), *([line] if line.plain else [])])
    for exchange in conversation.aside:
        text = one_line(exchange.ask.prompt.text, 40)
        aside = f"set aside, it ended the engine {counted(exchange.sent, 'time')}: {text} ({drops} takes it back)"
        line = Content("\n").join([Content.styled(aside, "$text-error"), *([line] if line.plain else [])])
    return line
