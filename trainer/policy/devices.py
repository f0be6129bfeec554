"""Where to compute, and in which number format."""

from __future__ import annotations

import torch

from storage.errors import UsageError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose(device: str = "auto", dtype: str = "auto") -> tuple[torch.device, torch.dtype]:
    """The device and number format to use; `auto` takes CUDA when there is one, and bf16 where it is native.

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
        return chosen, torch.bfloat16 if has_native_bf16(chosen) else torch.float32
    if dtype not in DTYPES:
        raise UsageError(f"unknown number format {dtype!r}", f"use one of: auto, {', '.join(DTYPES)}")
    return chosen, DTYPES[dtype]


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run in hardware there (elsewhere they are slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False


def short_name(dtype: torch.dtype) -> str:
    """bf16, fp16 or fp32."""
    return next(name for name, value in DTYPES.items() if value == dtype)
