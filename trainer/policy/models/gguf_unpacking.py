"""GGUF files that transformers unpacks: what is not read where it lies (:mod:`trainer.policy.models.gguf_model`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.policy.models.folder import OnProgress

# The tokenizer takes the first third, writing the last tenth.
UNPACKING_FROM, WRITING_FROM = 0.35, 0.9


def unpack(source: Path, folder: Path, on_progress: OnProgress) -> None:
    """Write the model of a file to a folder, with weights in bf16.

    Raises whatever transformers raises of a file that it cannot read.
    """
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading and writing; that of unpacking is forwarded
    on_progress(f"reading the tokenizer of {source.name}", 0.02)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    on_progress(f"unpacking {source.name}", UNPACKING_FROM)
    with _reported(on_progress, f"unpacking {source.name}"):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(source.parent), gguf_file=source.name, dtype=torch.bfloat16
        )
    # The loaded model still believes that it is quantised and would refuse to be saved plainly.
    model.hf_quantizer = None  # type: ignore[assignment]
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    on_progress(f"writing {folder.name.removesuffix('.partial')}", WRITING_FROM)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _reported(on_progress: OnProgress, text: str) -> Iterator[None]:
    """Forward the progress bar that transformers draws while it unpacks tensors, as fractions of the whole."""
    from transformers import modeling_gguf_pytorch_utils as unpacking

    original = getattr(unpacking, "tqdm", None)
    if original is None:
        yield
        return

    def fraction(done: float) -> float:
        return UNPACKING_FROM + (WRITING_FROM - UNPACKING_FROM) * done

    class Forwarded(original):  # type: ignore[misc, valid-type]
        def update(self, n: float = 1) -> bool | None:
            shown = super().update(n)
            if self.total:
                on_progress(text, fraction(self.n / self.total))
            return shown

        def __iter__(self) -> Iterator:
            for index, item in enumerate(super().__iter__()):
                on_progress(text, fraction(index / self.total) if self.total else None)
                yield item

    unpacking.tqdm = Forwarded
    try:
        yield
    finally:
        unpacking.tqdm = original
