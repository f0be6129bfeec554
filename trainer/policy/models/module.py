"""A model folder as a module of transformers, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from storage.errors import WorkbenchError


def load_module(folder: Path, dtype: torch.dtype, weights: Path | None = None) -> Any:
    """The causal language model of a folder.

    Args:
        weights: another folder whose weights are taken instead, as a full version has one.

    Raises:
        WorkbenchError: files lack weights (transformers would go on with random ones), or have them in other shapes.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would draw among what the program says
    loader: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    for part in (config, getattr(config, "text_config", None)):
        # Where a token of padding was added beyond the table, the table has no row for it, and nothing asks for one.
        if part is not None and (getattr(part, "pad_token_id", None) or 0) >= getattr(part, "vocab_size", 1):
            part.pad_token_id = None
    try:
        model, told = loader.from_pretrained(
            str(weights or folder),
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            generation_config=GenerationConfig(),
        )
    except RuntimeError as error:
        raise WorkbenchError(
            f"the weights of {weights or folder} do not fit its config.json: {str(error).splitlines()[0]}",
            "fetch the model again",
        ) from error
    if missing := sorted(map(str, told["missing_keys"])):
        raise WorkbenchError(f"the weights of {weights or folder} lack {missing[0]!r}", "is the folder complete?")
    return model
