"""Models of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from storage.errors import WorkbenchError
from trainer.policy.models.folder import OnProgress


def looks_like_hub_name(reference: str) -> bool:
    parts = reference.split("/")
    return len(parts) == 2 and all(parts) and not reference.startswith((".", "/", "~"))


def download(reference: str, on_progress: OnProgress, revision: str | None = None) -> Path:
    """Fetch weights and tokenizer files of a hub model (nothing that could be code), or find them in its cache."""
    import huggingface_hub

    on_progress(f"fetching {reference}", None)
    try:
        folder = huggingface_hub.snapshot_download(
            reference,
            revision=revision,
            allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"],
            ignore_patterns=["original/*", "consolidated*", "onnx/*"],
        )
    except Exception as error:
        raise WorkbenchError(
            f"{reference} could not be fetched from the hub: {error}",
            "check the name and the connection, or name a local folder; `smollm2` needs no network",
        ) from error
    return Path(folder)
