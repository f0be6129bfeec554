"""Turning conversations into token ids and back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from storage.errors import UsageError, WorkbenchError
from storage.records import Message, messages_of
from trainer.policy.models.end_tokens import end_tokens, vocabulary
from trainer.policy.models.templates import chat_template
from trainer.policy.models.words import read_words

# For base models, which come without a chat template of their own.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
# What stands before it where the tokenizer itself begins each text so.
_BEGIN = "{{ bos_token }}"
SYSTEM_FOLDED = (
    "the model's chat template takes no such system message: what it says stands before the user's next message instead"
)
# Stands for a text while it is found out what a template makes of it.
_MARK = "qxanswerxq"
_SYSTEM, _QUESTION, _ANSWER = Message("system", _MARK), Message("user", "?"), Message("assistant", "!")


class ChatTokenizer:
    """A tokenizer with its chat template.

    Args:
        eos_ids: the token ids that are said to end an answer.

    Attributes:
        eos_id: the token that ends a written answer: the one with which the chat template closes the model's turn, as
            the model itself ends what it says; the tokenizer's end-of-text token where the template names none.
        eos_ids: all token ids that end an answer, that one among them.
        template: the chat template in use.
        vocabulary: how many tokens the model has embeddings of, where that is known: a tokenizer may have more.
        words: where it was read from, if not from the model's own folder.
        takes_system: whether the template writes a system message that comes first, and one that comes later. What it
            does not write stands before the user's next message instead.
        room: how many tokens a prompt may have; None is as many as it has. The earliest turns of a conversation that
            has more are left out: see :meth:`fitted`.
    """

    vocabulary: int | None = None
    words: Path | None = None

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int]) -> None:
        self.room: int | None = None
        self.tokenizer = tokenizer
        self.template: str = tokenizer.chat_template or (_BEGIN if _begins(tokenizer) else "") + PLAIN_TEMPLATE
        stated = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(eos_ids)
        closing = closing_token(tokenizer, self.template, eos_ids)
        self.eos_id: int = stated if closing is None else closing
        self.eos_ids = eos_ids | {self.eos_id}
        self.takes_system = (
            self._writes([_SYSTEM, _QUESTION]), self._writes([_QUESTION, _ANSWER, _SYSTEM, _QUESTION])
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path, words: Path | None = None) -> ChatTokenizer:
        """Read the tokenizer of a model folder.

        Args:
            words: a folder with another tokenizer for the same model, as an adapter may bring one.

        Raises:
            WorkbenchError: there is none, it ends no answer, or its template cannot be chosen.
        """
        here = words or folder
        template = chat_template(here) or chat_template(folder)
        tokenizer = read_words(here)
        rows = vocabulary(folder)
        stated = tokenizer.eos_token_id
        ends = {stated} if stated is not None and (rows is None or stated < rows) else set()
        eos_ids = end_tokens(folder) | ends
        if not eos_ids:
            raise WorkbenchError(f"the tokenizer in {here} has no end-of-text token", "set eos_token in its config")
        tokenizer.chat_template = template
        if not ends:
            tokenizer.eos_token = None
        made = cls(tokenizer, frozenset(eos_ids))
        made.vocabulary, made.words = rows, words
        return made

    def encode_prompt(self, text: str, system: str = "") -> list[int]:
        """The token ids of a prompt, up to where the answer begins."""
        return self.encode_messages(messages_of(text, system))

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a conversation that ends with the user's message, up to where the answer begins; what does
        not fit into `room` is left out as :meth:`fitted` says.

        Raises:
            UsageError: the template refuses the conversation.
        """
        return self.fitted(messages, self.room)[0]

    def fitted(self, messages: Sequence[Message], room: int | None) -> tuple[list[int], int]:
        """The token ids of a conversation within so many tokens, and how many of its messages were left out.

        The earliest turns go first, a question with its answer; the system message that it begins with and the last
        message always stay, however long they are.
        """
        kept = list(messages)
        head = 1 if kept[0].role == "system" else 0
        ids = self._encoded(kept)
        while room is not None and len(ids) > room and len(kept) > head + 1:
            del kept[head]
            while len(kept) > head + 1 and kept[head].role == "assistant":
                del kept[head]
            ids = self._encoded(kept)
        return ids, len(messages) - len(kept)

    def folds(self, messages: Sequence[Message]) -> bool:
        """Whether a system message of these is written into the user's next message."""
        return any(
            message.role == "system" and not self.takes_system[place > 0] for place, message in enumerate(messages)
        )

    def _encoded(self, messages: Sequence[Message]) -> list[int]:
        try:
            encoded = self._rendered(self._folded(messages), begin=True, tokenize=True, return_dict=True)
        except Exception as error:  # a template is a program of somebody else's, and any error is its own
            roles = ", ".join(message.role for message in messages)
            raise UsageError(
                f"the model's chat template refuses the conversation ({roles}): {error}",
                "use a model whose template takes such turns, or leave the prompt out",
            ) from error
        return self._known(list(encoded["input_ids"]))

    def _folded(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with what system messages say that the template does not write before the user's next one."""
        found: list[Message] = []
        said: list[str] = []
        for place, message in enumerate(messages):
            if message.role == "system" and not self.takes_system[place > 0]:
                said.append(message.content)
            elif message.role == "user" and said:
                found.append(Message("user", "\n\n".join([*said, message.content])))
                said = []
            else:
                found.append(message)
        return found

    def _writes(self, messages: Sequence[Message]) -> bool:
        """Whether the template writes the system message that says :data:`_MARK`."""
        try:
            return _MARK in self._rendered(messages, begin=True, tokenize=False)
        except Exception:  # as in closing_token: it refuses the message
            return False

    def _rendered(self, messages: Sequence[Message], *, begin: bool, **more: Any) -> Any:
        return self.tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            chat_template=self.template, add_generation_prompt=begin, **more,
        )  # fmt: skip

    def encode_response(self, text: str, *, end: bool = True) -> list[int]:
        """The token ids of an answer that was written rather than sampled; `end` appends the token that ends it.

        What a template writes after that token, such as a line break, is no part of the answer.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._known([*ids, self.eos_id] if end else ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out, everything else stays as it was generated."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _known(self, ids: list[int]) -> list[int]:
        """The ids themselves. Raises UsageError where the model has no embedding of one."""
        beyond = max(ids, default=0)
        if self.vocabulary is not None and beyond >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(beyond)
            raise UsageError(
                f"the tokenizer writes {token!r} ({beyond}), and the model knows {self.vocabulary} tokens alone",
                "leave it out of the text; where the chat template writes it, the tokenizer is of another model",
            )
        return ids


def _begins(tokenizer: Any) -> bool:
    """Whether a tokenizer puts its token of beginning before each text."""
    begin = tokenizer.bos_token_id
    return begin is not None and list(tokenizer("?")["input_ids"])[:1] == [begin]


def closing_token(tokenizer: Any, template: str, eos_ids: Collection[int]) -> int | None:
    """The special token with which a chat template closes the model's turn, such as <|im_end|> or <end_of_turn>.

    It is the first special token after an answer's text. None where the template writes no such token, does not write
    the answer as it is, or cannot be rendered; also where the token may begin the next turn: one of `eos_ids` ends an
    answer for certain, any other only in a template that begins the next turn no sooner than it is asked to.
    """
    question = {"role": "user", "content": "?"}

    def rendered(messages: list[dict[str, str]], *, begin: bool) -> str:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=begin, tokenize=False
        )

    try:
        written = rendered([question, {"role": "assistant", "content": _MARK}], begin=False)
        waits = rendered([question], begin=True) != rendered([question], begin=False)
    except Exception:  # a template is a program of somebody else's: any error only means that it tells nothing
        return None
    _, found, after = written.rpartition(_MARK)
    if not found:
        return None
    special = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    special |= {tokenizer.convert_ids_to_tokens(number): number for number in eos_ids}
    places = {text: after.find(text) for text in special if text}
    first = min(
        (text for text in special if places.get(text, -1) >= 0), key=lambda text: (places[text], -len(text)), default=""
    )
    if first and (waits or special[first] in eos_ids):
        return special[first]
    return None
