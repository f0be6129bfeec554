"""Weights that are to answer: read beside their tokenizer, tried, and held against what they said when published."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import WorkbenchError
from storage.records import Sampling, Version

if TYPE_CHECKING:
    from trainer.policy.chat import ChatTokenizer
    from trainer.policy.decoding import Decoder
    from trainer.policy.models import ModelFolder


def read(
    folder: ModelFolder, words: Callable[[], ChatTokenizer], weights: Callable[[], Decoder]
) -> tuple[ChatTokenizer, Decoder]:
    """Tokenizer and weights of a model, read at once: one is work of Python's, the other of torch's."""
    from trainer.policy.models.config import Config, read_config

    # Before anything else begins: this, the tokenizer and the weights of a model that is not of our own families all
    # import transformers, which is not for two threads at once.
    config = read_config(folder.path)
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(words)
        if not isinstance(config, Config):
            reading.result()
        made = weights()
        return reading.result(), made


def tried(decoder: Decoder, tokenizer: ChatTokenizer, version: Version) -> Decoder:
    """The decoder itself, once it has sampled two tokens: weights that cannot do so must not go live."""
    try:
        (said,) = decoder.generate([tokenizer.encode_prompt("?")], Sampling(max_new_tokens=2), [0], frozenset())
        sound = all(map(math.isfinite, said.logprobs))
        reason = "its probabilities are not finite"
    except (RuntimeError, IndexError, ValueError) as error:
        sound, reason = False, str(error)
    if not sound:
        raise WorkbenchError(
            f"{version.name} cannot be sampled from: {reason}", "its weights are damaged or made for another model"
        )
    return decoder


def proof(path: Path | None, version: Version, decoder: Decoder, before: Decoder | None = None) -> str:
    """How well the decoder answers as the version did when it was published (`trainer.policy.probe`).

    Args:
        path: the version's file; None for a base model.
        before: what served until now, if its weights are others.

    Raises:
        WorkbenchError: it answers otherwise, or what is to be compared with is damaged.
    """
    from trainer.policy import probe

    if path is None:
        return "the base model"
    stored = probe.read(path.parent, decoder.vocabulary, decoder.context)
    return probe.prove(version.name, stored, decoder, before) if stored is not None else probe.NO_PROBE
