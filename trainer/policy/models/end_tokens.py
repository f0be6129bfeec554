"""Which tokens end an answer, by the files of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.policy.models.folder import read_json


def end_tokens(folder: Path) -> frozenset[int]:
    """The token ids at which the model's own `generate` stops: those of generation_config.json, else of config.json
    (its part for text, in models of several kinds of input). Ids that the vocabulary lacks are none.

    Raises:
        WorkbenchError: a file is damaged.
    """
    hint = "fetch the model again"
    config = read_json(folder / "config.json", hint)
    text = config.get("text_config") or {}
    stated = [config.get("eos_token_id"), text.get("eos_token_id")]
    generation = folder / "generation_config.json"
    if generation.exists():
        stated.insert(0, read_json(generation, hint).get("eos_token_id"))
    rows = vocabulary(folder)
    for found in map(_ids, stated):
        if known := frozenset(token for token in found if token >= 0 and (rows is None or token < rows)):
            return known
    return frozenset()


def vocabulary(folder: Path) -> int | None:
    """How many tokens a model has embeddings of; None where its config.json does not say."""
    config = read_json(folder / "config.json", "fetch the model again")
    rows = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return rows if isinstance(rows, int) else None


def _ids(stated: Any) -> list[int]:
    """Of one id, a list of them, or none."""
    return [token for token in (stated if isinstance(stated, list) else [stated]) if isinstance(token, int)]
