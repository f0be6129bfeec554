"""Models as they come: bundled, from the hub, GGUF files, folders. Each becomes a local folder of safetensors."""

from trainer.policy.models.bundles import BUNDLES, bundled_parts, gguf_source
from trainer.policy.models.folder import ModelFolder, open_weights, stored_bytes, weight_files
from trainer.policy.models.resolving import resolve

__all__ = [
    "BUNDLES",
    "ModelFolder",
    "bundled_parts",
    "gguf_source",
    "open_weights",
    "resolve",
    "stored_bytes",
    "weight_files",
]
