"""What the GGUF file of a llama says of the model, as a folder of transformers' says it: configuration and tokenizer.

This is what transformers makes of such a file (and what it made of it for the copies of earlier releases), in a second
less and without it. A file that states anything that is not read here is left to transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from trainer.policy.models.gguf_file import GgufFile, folder_name

_NORMAL, _CONTROL = 1, 3  # what `tokenizer.ggml.token_type` calls a token of text, and one that text cannot write
_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How texts are split, by `tokenizer.ggml.pre`: as GPT-2 does, or as Llama 3 does.
_SPLITS = {None: None, "default": None, "gpt-2": None, "smollm": None} | dict.fromkeys(
    ("llama3", "llama-v3", "llama-bpe"), _LLAMA3_SPLIT
)
# What the metadata may say of a llama beyond what is read: nothing that changes what is computed.
_SILENT = ("general.", "tokenizer.", "llama.")
_UNREAD = ("llama.rope.scaling.", "llama.expert", "llama.attention.sliding", "llama.attention.key_length",
           "llama.attention.value_length", "llama.attention.clamp")  # fmt: skip


def is_read(file: GgufFile) -> bool:
    """Whether everything that the file states is known here: then its weights are read where they are."""
    said = file.stated
    if said.get("general.architecture") != "llama" or "mistral" in str(said.get("general.name", "")).lower():
        return False
    if any(not key.startswith(_SILENT) or key.startswith(_UNREAD) for key in said):
        return False
    if said.get("tokenizer.ggml.model") != "gpt2" or said.get("tokenizer.ggml.pre") not in _SPLITS:
        return False
    if any(folder_name(name) is None or file.format(name) is None for name in file.tensors):
        return False
    return _plain_tokens(said)


def _plain_tokens(said: dict[str, Any]) -> bool:
    """Whether each token is written in the letters that stand for bytes, and is one of text or of control."""
    tokens, kinds = said.get("tokenizer.ggml.tokens"), said.get("tokenizer.ggml.token_type")
    if not tokens or not kinds or "tokenizer.ggml.merges" not in said or len(set(tokens)) != len(tokens):
        return False
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    named = [said[key] for name in _TOKENS.values() if (key := f"tokenizer.ggml.{name}_token_id") in said]
    return (
        set(kinds) <= {_NORMAL, _CONTROL}
        and set().union(*tokens) <= letters
        and all(number < len(tokens) and kinds[number] == _CONTROL for number in named)
    )


def write_model(file: GgufFile, folder: Path) -> None:
    """Write configuration, tokenizer and chat template of a file that :func:`is_read` to a folder; no weights."""
    said = file.stated
    ids = {f"{name}_token_id": said.get(f"tokenizer.ggml.{stored}_token_id") for name, stored in _TOKENS.items()}
    _write(folder / "config.json", _config(file) | ids)
    del ids["unk_token_id"]
    _write(folder / "generation_config.json", {name: number for name, number in ids.items() if number is not None})
    named = _named(said)
    settings = {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend"}
    _write(folder / "tokenizer_config.json", settings | {f"{name}_token": token for name, token in named.items()})
    _tokenizer(said, named).save(str(folder / "tokenizer.json"), pretty=False)
    if "tokenizer.chat_template" in said:
        (folder / "chat_template.jinja").write_text(said["tokenizer.chat_template"], encoding="utf-8")


def _named(said: dict[str, Any]) -> dict[str, str]:
    """The tokens that have a name, such as `eos`."""
    stated = {name: said.get(f"tokenizer.ggml.{stored}_token_id") for name, stored in _TOKENS.items()}
    return {name: said["tokenizer.ggml.tokens"][number] for name, number in stated.items() if number is not None}


def _config(file: GgufFile) -> dict[str, Any]:
    said, tokens = file.stated, file.stated["tokenizer.ggml.tokens"]
    heads = said["llama.attention.head_count"]
    hidden = said["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": said.get("llama.vocab_size", len(tokens)),
        "hidden_size": hidden,
        "intermediate_size": said["llama.feed_forward_length"],
        "num_hidden_layers": said["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": said.get("llama.attention.head_count_kv", heads),
        "head_dim": said.get("llama.rope.dimension_count", hidden // heads),
        "max_position_embeddings": said["llama.context_length"],
        "rms_norm_eps": said["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": said.get("llama.rope.freq_base", 10000.0)},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": "bfloat16",
    }


def _tokenizer(said: dict[str, Any], named: dict[str, str]) -> Tokenizer:
    tokens = said["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    pieces = models.BPE(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges,
        continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False,
    )  # fmt: skip
    made = Tokenizer(pieces)
    split = _SPLITS[said.get("tokenizer.ggml.pre")]
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    by_regex = [] if split is None else [pre_tokenizers.Split(Regex(split), behavior="isolated")]
    made.pre_tokenizer = pre_tokenizers.Sequence([*by_regex, bytes_alone]) if by_regex else bytes_alone
    made.decoder = decoders.ByteLevel()
    kinds = said["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    around = {
        name: named[name] for name in ("bos", "eos") if said.get(f"tokenizer.ggml.add_{name}_token") and name in named
    }
    begin = f"{around['bos']}:0 " if "bos" in around else ""
    end = f" {around['eos']}:0" if "eos" in around else ""
    single = f"{begin}$A:0{end}"
    made.post_processor = processors.TemplateProcessing(
        single=single,
        pair=f"{single}{begin and ' ' + begin.replace(':0 ', ':1')} $B:1{end.replace(':0', ':1')}",
        special_tokens=[(token, tokens.index(token)) for token in around.values()],
    )
    return made


def _write(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
