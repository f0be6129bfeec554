"""What is chosen from a list on Prompt: an earlier prompt, a conversation, a language; and how answers are sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual.content import Content

from storage import turns
from storage.languages import matching
from workbench.shell.session import SETTINGS
from workbench.text import one_line
from workbench.widgets.dialogs import PickDialog

if TYPE_CHECKING:
    from storage.records import Prompt
    from workbench.screens.prompt.asking import AskingScreen


def earlier_prompt(screen: AskingScreen, chosen: Callable[[Prompt], None]) -> None:
    """Choose an earlier prompt; a search looks through all turns."""
    _one_of_the_prompts(
        screen, "Earlier prompts", lambda typed: screen.attempt(lambda desk: desk.history(typed)),
        lambda prompt: one_line(prompt.transcript, 160), chosen,
    )  # fmt: skip


def conversation(screen: AskingScreen, chosen: Callable[[Prompt], None]) -> None:
    """Choose a conversation, to go on with it; a search looks through all turns."""

    def line(prompt: Prompt) -> str:
        questions = [message.content for message in prompt.messages if message.role == "user"]
        first, *_, last = [questions[0], *questions]
        more = f"  … {one_line(last, 60)}" if len(questions) > 1 else ""
        count = f"{len(questions)} turns" if len(questions) > 1 else "1 turn "
        return f"{prompt.created_at[5:16].replace('T', ' ')}  {count:<9} {one_line(first, 60)}{more}"

    _one_of_the_prompts(
        screen, "Conversations", lambda typed: screen.attempt(lambda desk: desk.read(turns.every, typed)), line, chosen
    )


def _one_of_the_prompts(
    screen: AskingScreen,
    title: str,
    search: Callable[[str], Awaitable[list[Prompt] | None]],
    words: Callable[[Prompt], str],
    chosen: Callable[[Prompt], None],
) -> None:
    known: dict[str, Prompt] = {}

    async def find(typed: str) -> list[tuple[str, Content]]:
        found = {prompt.id: prompt for prompt in await search(typed) or []}
        known.update(found)
        return [
            (key, Content.assemble((f"{one_line(prompt.language, 8):<4}", "$accent"), words(prompt)))
            for key, prompt in found.items()
        ]

    screen.app.push_screen(
        PickDialog(title, find, placeholder="search"), lambda key: chosen(known[key]) if key is not None else None
    )


async def language(screen: AskingScreen) -> None:
    """Choose the language of what is written next."""
    await asyncio.to_thread(matching, "")  # the names of languages are read from disk the first time

    async def find(typed: str) -> list[tuple[str, Content]]:
        found = await asyncio.to_thread(matching, typed)
        return [(tag, Content.assemble((f"{tag:<8}", "bold $accent"), name)) for tag, name in found]

    def chosen(tag: str | None) -> None:
        if tag is not None:
            screen.write_in(tag)

    screen.app.push_screen(PickDialog("Language", find, placeholder="a language or a BCP 47 tag"), chosen)


def parameters(screen: AskingScreen) -> None:
    """Set what shapes an answer."""
    from workbench.widgets.settings import apply, form

    shaping = [setting for setting in SETTINGS if setting.where == "answers"]

    def chosen(values: dict[str, object] | None) -> None:
        if values is not None:
            apply(screen.workbench, shaping, values)

    screen.app.push_screen(form("Parameters", shaping, screen.workbench.session, {}), chosen)
