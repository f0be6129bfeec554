"""A model folder's tokenizer, read by the `tokenizers` package alone where that is all there is to it.

Transformers' AutoTokenizer may rebuild what `tokenizer.json` states, add tokens, or convert another format. Where it
would do none of this, :class:`Words` reads the file as it would, in a tenth of a second instead of two; every other
folder is left to it (:func:`read_words`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from storage.errors import WorkbenchError
from trainer.policy.models.rendering import render

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LARGE = 100_000  # tokens; from here on transformers mends the splitting of Mistral's tokenizers
_PLAIN = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
# What Qwen2Tokenizer builds anew: where the file states the same, it is as it would be.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_SPLITS = [
    {"type": "Split", "pattern": {"Regex": _QWEN_SPLIT}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
]
_QWEN_MODEL = {
    "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
    "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
}  # fmt: skip
_QWEN_TOKENS = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")


class Words:
    """A tokenizer, with what the rest of the program asks of one of transformers', by the same names.

    Attributes:
        special: special tokens by their names, such as `eos_token`; others by the token itself.
        chat_template: in use where none is named.
    """

    def __init__(self, backend: Tokenizer, special: dict[str, str]) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend, self.special = backend, special
        self.chat_template: str | None = None

    @property
    def eos_token(self) -> str | None:
        return self.special.get("eos_token")

    @eos_token.setter
    def eos_token(self, token: str | None) -> None:
        self.special = {name: one for name, one in self.special.items() if name != "eos_token"}
        if token is not None:
            self.special["eos_token"] = token

    @property
    def eos_token_id(self) -> int | None:
        return self._id_of("eos_token")

    @property
    def bos_token_id(self) -> int | None:
        return self._id_of("bos_token")

    def _id_of(self, name: str) -> int | None:
        token = self.special.get(name)
        return None if token is None else self.backend.token_to_id(token)

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys(self.special.values()))

    @property
    def all_special_ids(self) -> list[int]:
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self.backend.get_added_tokens_decoder()

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def convert_ids_to_tokens(self, token_id: int) -> str | None:
        return self.backend.id_to_token(token_id)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or those of several; that of the unknown token, or None, for one that there is not."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        found = self.backend.token_to_id(tokens)
        return self._id_of("unk_token") if found is None else found

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self.backend.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False, **ignored: Any) -> str:
        """The text as it was generated: spaces are never cleaned up."""
        return self.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def apply_chat_template(
        self,
        conversation: Sequence[dict[str, str]],
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
    ) -> Any:
        """As transformers' of this name, of one conversation without tools."""
        template = chat_template or self.chat_template
        if template is None:
            raise ValueError("there is no chat template")
        named = {name: token for name, token in self.special.items() if name != token}
        text = render(template, conversation, begin=add_generation_prompt, tokens=named)
        if not tokenize:
            return text
        encoded = self(text, add_special_tokens=False)
        return encoded if return_dict else encoded["input_ids"]


def read_words(folder: Path) -> Any:
    """The tokenizer of a folder: :class:`Words`, or one of transformers' for a folder that asks for more.

    Raises:
        WorkbenchError: it cannot be loaded.
    """
    try:
        found = _words(folder)
        if found is not None:
            return found
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise WorkbenchError(
            f"the tokenizer in {folder} cannot be loaded: {error}", "is the folder complete?"
        ) from error


def _words(folder: Path) -> Words | None:
    """None where transformers would make something else of the files than `tokenizer.json` states."""
    file, settings = folder / "tokenizer.json", _json(folder / "tokenizer_config.json")
    if settings is None or not file.is_file() or settings.get("split_special_tokens") or "auto_map" in settings:
        return None
    text = file.read_text(encoding="utf-8")
    stated: dict[str, Any] = json.loads(text)
    if not _as_stated(stated, settings, _json(folder / "config.json") or {}):
        return None
    special = _special(folder, settings)
    known = {token["content"]: token for token in stated["added_tokens"]}
    if special is None or any(not known.get(token, {}).get("special") for token in special.values()):
        return None
    if not _adds_nothing(folder, settings, stated["added_tokens"]):
        return None
    return Words(Tokenizer.from_str(text), special)


def _as_stated(stated: dict[str, Any], settings: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether AutoTokenizer builds, for a model of that kind, the pieces that the file states."""
    kind, name = config.get("model_type"), str(settings.get("tokenizer_class"))
    size = len(stated["model"].get("vocab", ())) + len(stated["added_tokens"])
    if kind in ("qwen2", "qwen3"):
        return (
            _is_qwen(settings)
            and not settings.get("add_prefix_space")
            and stated["normalizer"] == {"type": "NFC"}
            and [_without(part, "trim_offsets") for part in (stated["pre_tokenizer"] or {}).get("pretokenizers", [])]
            == _QWEN_SPLITS
            and (stated["decoder"] or {}).get("type") == "ByteLevel"
            and _without(stated["model"], "vocab", "merges") == _QWEN_MODEL
        )
    if kind == "mistral" and (importlib.util.find_spec("mistral_common") or size >= LARGE):
        return False
    if kind is None:  # a tokenizer alone, as a version may keep one
        return name in _PLAIN
    if kind not in ("llama", "mistral"):
        return False
    return name in _PLAIN or (name.removesuffix("Fast") == "LlamaTokenizer" and _is_byte_level(stated))


def _is_qwen(settings: dict[str, Any]) -> bool:
    return str(settings.get("tokenizer_class")).removesuffix("Fast") == "Qwen2Tokenizer"


def _without(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def _is_byte_level(stated: dict[str, Any]) -> bool:
    splits = stated["pre_tokenizer"] or {}
    return any(part.get("type") == "ByteLevel" for part in [splits, *splits.get("pretokenizers", [])])


def _special(folder: Path, settings: dict[str, Any]) -> dict[str, str] | None:
    """Special tokens by their names; None where they are stated in a way that is not read here."""
    named = dict(_QWEN_TOKENS if _is_qwen(settings) else {}) | settings
    if "added_tokens_decoder" not in settings:
        named |= _json(folder / "special_tokens_map.json") or {}
    special: dict[str, str] = {}
    for name, token in named.items():
        content = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(content, str):
            special[name] = content
    order = [name for name in NAMED if name in special] + [name for name in special if name not in NAMED]
    special = {name: special[name] for name in order}
    more = named.get("extra_special_tokens") or named.get("additional_special_tokens") or []
    if isinstance(more, dict):
        return None
    for token in more:
        content = str(token.get("content") if isinstance(token, dict) else token)
        special.setdefault(content, content)
    return special


def _adds_nothing(folder: Path, settings: dict[str, Any], added: list[dict[str, Any]]) -> bool:
    """Whether all tokens that other files add are in `tokenizer.json` as they state them."""
    known = {str(token["id"]): _without(token, "id") for token in added}
    listed = settings.get("added_tokens_decoder")
    if listed is not None:
        return all(known.get(number) == token for number, token in listed.items())
    others = _json(folder / "added_tokens.json") or {}
    return all(known.get(str(number), {}).get("content") == token for token, number in others.items())


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no file."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else None
