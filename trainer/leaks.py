"""What measures is never learned from, in whatever case, spacing or form it comes back.

Prompts that open alike share their split (:mod:`storage.conversations`). This finds what asks the same and opens
otherwise: the question of a held-out prompt in capitals, or in the third turn of a conversation, or in a file.
"""

from __future__ import annotations

from collections.abc import Iterator

from storage import conversations
from storage.database import Database
from storage.forms import folded, opening_key
from storage.records import Prompt, Split

# A line of a longer message that is a whole question of a held-out prompt; what is shorter may stand there by chance.
LINE = 20  # bytes: fewer signs where each says more


def learnable(database: Database, upto: int | None = None) -> tuple[list[Prompt], int]:
    """The training prompts, oldest first, up to one sequence where it is given, without those that ask what a held-out
    or an ethics prompt opens with; and how many were left out."""
    apart = {
        folded(opening_key(prompt.text, prompt.earlier))
        for split in (Split.HELD_OUT, Split.ETHICS)
        for prompt in conversations.by_split(database, split)
    }
    given = conversations.by_split(database, Split.TRAIN, upto=upto)
    kept = [prompt for prompt in given if not _asks(prompt, apart)]
    return kept, len(given) - len(kept)


def _asks(prompt: Prompt, apart: set[str]) -> bool:
    return any(said in apart and (whole or len(said.encode()) >= LINE) for said, whole in sayings(prompt))


def sayings(prompt: Prompt) -> Iterator[tuple[str, bool]]:
    """What the user says in a prompt, each message and each line of one as :func:`storage.forms.folded` has it, with
    whether it is a whole message."""
    for message in prompt.messages:
        if message.role == "user":
            yield folded(message.content), True
            if "\n" in message.content:
                yield from ((folded(line), False) for line in message.content.splitlines())
