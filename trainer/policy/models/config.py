"""What `config.json` states of a model, read without transformers where the own forward pass computes it.

Transformers' configuration classes bring much of transformers and torch's compiler with them: two seconds of processor
time. For the llama family a configuration is a dozen numbers. Whatever is not stated in full, or is of another
architecture, transformers reads, which knows its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.policy.models.folder import read_json

FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})
STATIC_ROPE = frozenset({"default", "linear", "llama3"})
_STATED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act",
)  # fmt: skip
# Models whose class has another default than none for these state them, or are left to it.
_STATED_TOO = {"mistral": ("sliding_window",), "qwen3": ("head_dim",)}


@dataclass(frozen=True)
class Config:
    """The configuration of a model of the llama family, by the names that transformers gives it.

    Attributes:
        rope_parameters: `rope_type`, `rope_theta`, and what the type asks for.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    hidden_act: str
    tie_word_embeddings: bool = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    rope_parameters: dict[str, Any] = field(default_factory=dict)


def read_config(folder: Path) -> Any:
    """The configuration of the model in a folder: a :class:`Config`, or one of transformers', of its text part.

    Raises:
        WorkbenchError: config.json is missing or damaged.
    """
    stated = read_json(folder / "config.json", "a model folder needs its config.json")
    own = _own(stated)
    if own is not None:
        return own
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    return getattr(config, "text_config", None) or config


def _own(stated: dict[str, Any]) -> Config | None:
    """None where transformers must be asked."""
    kind = stated.get("model_type")
    if kind not in FAMILY or any(name not in stated for name in (*_STATED, *_STATED_TOO.get(kind, ()))):
        return None
    rope = _rope(stated)
    if rope is None:
        return None
    numbers = {name: stated[name] for name in _STATED}
    heads = numbers["num_attention_heads"]
    numbers["num_key_value_heads"] = numbers["num_key_value_heads"] or heads
    if any(value is None for value in numbers.values()):
        return None
    window = stated.get("sliding_window")
    if kind.startswith("qwen") and not stated.get("use_sliding_window"):
        window = None
    return Config(
        **numbers,
        model_type=kind,
        head_dim=stated.get("head_dim") or numbers["hidden_size"] // heads,
        tie_word_embeddings=bool(stated.get("tie_word_embeddings", False)),
        mlp_bias=bool(stated.get("mlp_bias", False)),
        sliding_window=window,
        rope_parameters=rope,
    )


def _rope(stated: dict[str, Any]) -> dict[str, Any] | None:
    """How positions are written, in the form of today; None for what is not stated in full or is computed elsewhere."""
    if "partial_rotary_factor" in stated or "original_max_position_embeddings" in stated:
        return None
    rope = dict(stated.get("rope_scaling") or stated.get("rope_parameters") or {})
    rope.setdefault("rope_type", rope.get("type", "default"))
    if "rope_theta" in stated:
        rope.setdefault("rope_theta", stated["rope_theta"])
    if rope["rope_type"] not in STATIC_ROPE or "partial_rotary_factor" in rope:
        return None
    if rope["rope_type"] == "llama3":
        rope.setdefault("original_max_position_embeddings", stated.get("max_position_embeddings"))
    needed = {"default": (), "linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
    numbers = (rope.get(name) for name in ("rope_theta", *needed[rope["rope_type"]]))
    return rope if all(isinstance(number, int | float) for number in numbers) else None
