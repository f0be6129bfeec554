"""Arena battles (lmsys/chatbot_arena_conversations and later sets): two models answer, somebody votes, or ties."""

from __future__ import annotations

from typing import Any

from storage.exchange.dialogue import Message, message, messages, parted
from storage.exchange.layout import Fields, Layout, has
from storage.exchange.rows import BadFieldError, text
from storage.exchange.values import figure, one_of, parsed, truth
from storage.wording import counted

_WINNERS = {
    "model_a": "a", "model_b": "b", "tie": "tie", "tie (bothbad)": "both-bad", "bothbad": "both-bad",
    "both_bad": "both-bad",
}  # fmt: skip
_COLUMNS = {"winner_model_a": "a", "winner_model_b": "b", "winner_tie": "tie"}


def recognises(fields: Fields) -> bool:
    """Both sides and a vote."""
    sides = has(fields, "conversation_a", "conversation_b") or has(fields, "prompt", "response_a", "response_b")
    return sides and ("winner" in fields or has(fields, *_COLUMNS))


def read(fields: Fields) -> list[dict[str, Any]]:
    """One pair, as it was shown. Battles whose earlier answers differ are no two answers to one prompt."""
    first, second = (_side(fields, side) for side in "ab")
    prompt, answer, other = parted(first, second)
    pair = {"prompt": prompt, "response": answer, "other_response": other, "choice": _choice(fields)}
    said_by = {"model": "model_a", "other_model": "model_b", "rater": "judge"}
    return [{**pair, **{ours: fields[theirs] for ours, theirs in said_by.items() if theirs in fields}}]


def _choice(fields: Fields) -> str:
    if "winner" in fields:
        return one_of("winner", fields["winner"], _WINNERS)
    won = [choice for name, choice in _COLUMNS.items() if name in fields and truth(name, fields[name])]
    if len(won) != 1:
        raise BadFieldError(
            "winner_model_a, winner_model_b, winner_tie", f"{len(won)} of them are true, and one must be"
        )
    return won[0]


def _side(fields: Fields, side: str) -> tuple[str, list[Message]]:
    """The name of a side's field and its turns, up to the one that was voted on."""
    if (name := f"conversation_{side}") in fields:
        said = messages(name, fields[name])
    else:
        name = f"response_{side}"
        asked, answers = (_texts(one, fields.get(one)) for one in ("prompt", name))
        if len(asked) != len(answers):
            raise BadFieldError(name, f"holds {counted(len(answers), 'answer')} to {counted(len(asked), 'prompt')}")
        said = [one for pair in zip(asked, answers, strict=True) for one in _round(*pair)]
    if "turn" in fields:
        turns = int(figure("turn", fields["turn"]))
        if turns < 1:
            raise BadFieldError("turn", f"must be 1 or more, not {turns}")
        systems = sum(one["role"] == "system" for one in said)
        said = said[: systems + 2 * turns]
    return name, said


def _round(asked: str, answered: str) -> tuple[Message, Message]:
    return message("user", asked), message("assistant", answered)


def _texts(name: str, value: Any) -> list[str]:
    """One text, or as many as there were turns; a turn without an answer is null."""
    found = parsed(value)
    if isinstance(found, list) and found and all(isinstance(turn, str | None) for turn in found):
        return [turn or "" for turn in found]
    return [text(name, value, empty=True)]


LAYOUT = Layout(
    name="arena",
    known_by="`conversation_a` and `conversation_b`, or `prompt`, `response_a` and `response_b`, with `winner` or "
    "`winner_model_a`, `winner_model_b`, `winner_tie`",
    becomes={
        **{
            f"conversation_{side}": "the turns before the last answer are the prompt, that answer is compared"
            for side in "ab"
        },
        "prompt": "the prompt, a text or a list of one text a turn",
        **{f"response_{side}": "the answers to it" for side in "ab"},
        "winner": "a preference, a tie, or both bad",
        **dict.fromkeys(("winner_model_a", "winner_model_b"), "a preference"),
        "winner_tie": "a tie",
        "model_a": "the model of the first answer",
        "model_b": "the model of the second",
        "judge": "the rater",
        "turn": "how many turns were judged; what follows them is left out",
        "language": "the language, by its name or its tag; `unknown` is `und`",
    },
    left="`question_id`, `id`, `tstamp`, `anony`, `toxic_chat_tag`, moderation, statistics; battles whose earlier "
    "answers differ are refused",
    recognises=recognises,
    read=read,
)
