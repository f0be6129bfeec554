"""Where to compute, and in which number format."""

from __future__ import annotations

import torch

from storage.errors import UsageError

# Below this size of stored weights, in bytes, a GPU computes in fp32: it is as fast there (launching kernels is
# what takes the time), and what rounding does to 16-bit log-probabilities is spared. About a billion parameters.
SMALL = 2_500_000_000
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose(device: str = "auto", dtype: str = "auto", stored: int | None = None) -> tuple[torch.device, torch.dtype]:
    """The device and number format to use; `auto` takes CUDA when there is one, and bf16 where it is native, but for
    small models on a GPU.

    Args:
        stored: the size of the model's weight files in bytes, where it is known.

    Raises:
        UsageError: a name that is unknown, or a device this machine lacks.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used: {reason}", "use --device auto, cpu or cuda") from error
    if dtype == "auto":
        return chosen, usual_dtype(chosen.type, has_native_bf16(chosen), stored)
    if dtype not in DTYPES:
        raise UsageError(f"unknown number format {dtype!r}", f"use one of: auto, {', '.join(DTYPES)}")
    return chosen, DTYPES[dtype]


def usual_dtype(device: str, native_bf16: bool, stored: int | None) -> torch.dtype:
    """bf16 where the device multiplies in it and the model is not a small one on a GPU, else fp32."""
    small = device == "cuda" and stored is not None and stored < SMALL
    return torch.bfloat16 if native_bf16 and not small else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run in hardware there (elsewhere they are slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        # oneDNN can be held to older instructions (ONEDNN_MAX_CPU_ISA).
        return bool(supported and supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def short_name(dtype: torch.dtype) -> str:
    """bf16, fp16 or fp32."""
    return next(name for name, value in DTYPES.items() if value == dtype)
