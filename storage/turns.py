"""The turns of a conversation, and the conversations there are: a conversation is its messages, no more.

A prompt holds all messages before it, so that each of its turns is found again as a prompt of its own with the answer
that was gone on from. What two people asked stays together when their workspaces are merged.
"""

from __future__ import annotations

import msgspec

from storage import conversations, samples
from storage.database import Database
from storage.forms import prompt_key
from storage.records import Message, Prompt, Sample

_TYPED = "prompts.origin = 'typed'"


class Turn(msgspec.Struct, frozen=True):
    """One turn of a conversation: what was `asked`, and what was `said`.

    Attributes:
        earlier: the messages before it, a system message at the beginning aside.
        prompt: what was asked, after all that stood before it; None where it was not asked here.
        answers: the answers that were sampled together, that one among them; empty where it is not stored.
        place: which of them it is.
    """

    asked: str
    said: str
    earlier: tuple[Message, ...] = ()
    prompt: Prompt | None = None
    answers: tuple[Sample, ...] = ()
    place: int = 0

    @property
    def sample(self) -> Sample | None:
        """The answer as it is stored."""
        return self.answers[self.place] if self.answers else None


def before(database: Database, prompt: Prompt, most: int) -> list[Turn]:
    """The turns before a prompt's last message, oldest first, each with up to `most` of the answers given to it."""
    return [_found(database, prompt, turn, most) for turn in spoken(prompt)]


def spoken(prompt: Prompt) -> list[Turn]:
    """The same, by what was said alone."""
    found = []
    for place, message in enumerate(prompt.earlier):
        if message.role == "assistant":
            asked = prompt.earlier[place - 1] if place else None
            words = asked.content if asked is not None and asked.role == "user" else ""
            found.append(Turn(words, message.content, prompt.earlier[: max(0, place - 1)]))
    return found


def _found(database: Database, prompt: Prompt, turn: Turn, most: int) -> Turn:
    """A turn as it is stored."""
    for one in _asked(database, prompt, turn):
        turn = msgspec.structs.replace(turn, prompt=turn.prompt or one)
        same = [answer for answer in samples.of_prompt(database, one.id) if answer.text == turn.said]
        if same:
            answers, place = together(database, same[-1], most)
            return msgspec.structs.replace(turn, prompt=one, answers=tuple(answers), place=place)
    return turn


def _asked(database: Database, prompt: Prompt, turn: Turn) -> list[Prompt]:
    """The prompts that an earlier turn of a prompt was, those in its language first."""
    return database.records(
        Prompt,
        "SELECT * FROM prompts WHERE text_key = ? AND system = ? ORDER BY language != ?, sequence",
        (prompt_key(turn.asked, turn.earlier), prompt.system, prompt.language),
    )


def together(database: Database, sample: Sample, most: int) -> tuple[list[Sample], int]:
    """Up to `most` of the answers that were sampled together with one, that one among them; and its place."""
    group = samples.of_group(database, sample.group_id) if sample.group_id else [sample]
    place = [one.id for one in group].index(sample.id)
    if place < most:
        return group[:most], place
    return [*group[: most - 1], sample], most - 1


def latest(database: Database, prompt: Prompt, most: int) -> list[Sample]:
    """The answers to a prompt that were sampled together last, up to `most` of them."""
    newest = database.record(
        Sample, "SELECT * FROM samples WHERE prompt_id = ? ORDER BY sequence DESC LIMIT 1", (prompt.id,)
    )
    if newest is None:
        return []
    group = samples.of_group(database, newest.group_id) if newest.group_id else [newest]
    return group[:most]


def every(database: Database, search: str = "", limit: int = 200) -> list[Prompt]:
    """The newest conversations that somebody typed, each by its last prompt: of the newest prompts in whose turns
    `search` stands, those that no other one of them goes on from. Those that part are several."""
    typed = conversations.newest(database, Prompt, "prompts.*", limit, search, where=_TYPED)
    gone_on_from = {key for prompt in typed for key in _ancestors(prompt)}
    return [prompt for prompt in typed if _key(prompt, len(prompt.earlier)) not in gone_on_from]


def _ancestors(prompt: Prompt) -> list[tuple[str, str]]:
    places = [place for place, message in enumerate(prompt.earlier) if message.role == "user"]
    return [_key(prompt, place) for place in places]


def _key(prompt: Prompt, place: int) -> tuple[str, str]:
    """What the prompt is known by that ends with a message of these, in whatever language."""
    messages = prompt.messages[1:] if prompt.system else prompt.messages
    return prompt_key(messages[place].content, prompt.earlier[:place]), prompt.system
