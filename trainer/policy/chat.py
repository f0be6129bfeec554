"""Turning what a person typed into token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.errors import WorkbenchError

# For base models, which come without a chat template of their own.
PLAIN_TEMPLATE = (
    "{% if bos_token is defined and bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)


class ChatTokenizer:
    """A tokenizer with its chat template.

    Attributes:
        eos_ids: the token ids that end an answer.
        pad_id: the id written where there is no token. It may equal an EOS id: what counts is always said by a mask.
        template: the chat template in use.
    """

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids)
        self.template: str = tokenizer.chat_template or PLAIN_TEMPLATE

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """Read the tokenizer of a model folder. Raises WorkbenchError when there is none or it ends no answer."""
        from transformers import AutoTokenizer, GenerationConfig

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except Exception as error:
            raise WorkbenchError(
                f"the tokenizer in {folder} cannot be loaded: {error}", "is the folder complete?"
            ) from error
        found = {tokenizer.eos_token_id}
        if (folder / "generation_config.json").exists():
            stated = GenerationConfig.from_pretrained(str(folder)).eos_token_id
            found |= set(stated) if isinstance(stated, list) else {stated}
        eos_ids = frozenset(token for token in found if token is not None)
        if not eos_ids:
            raise WorkbenchError(f"the tokenizer in {folder} has no end-of-text token", "set eos_token in its config")
        return cls(tokenizer, eos_ids)

    def encode_prompt(self, text: str, system: str = "") -> list[int]:
        """The token ids of a prompt, up to where the answer begins."""
        return self.encode_conversation([("user", text)], system)

    def encode_conversation(self, turns: Sequence[tuple[str, str]], system: str = "") -> list[int]:
        """The token ids of a conversation of (role, text), up to where the next answer begins."""
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": role, "content": text} for role, text in turns]
        encoded = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        return list(encoded["input_ids"])

    def encode_response(self, text: str, *, end: bool = True) -> list[int]:
        """The token ids of an answer that was written rather than sampled; `end` appends the end-of-text token."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [*ids, self.eos_id] if end else ids

    @property
    def eos_id(self) -> int:
        """The end-of-text token that a written answer gets."""
        stated = self.tokenizer.eos_token_id
        return stated if stated is not None else min(self.eos_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out, everything else stays as it was generated."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
