"""Where a scorer runs and in what precision."""

import torch

from sipo.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def require_settings(device: str, dtype: str, batch_size: int) -> None:
    """Raises UsageError for a device, precision or batch size that cannot be."""
    if dtype not in DTYPES:
        raise UsageError(f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
    if batch_size < 1:
        raise UsageError(f"batch_size: {batch_size} must be at least 1")
    resolve_device(device)


def resolve_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one. Raises UsageError for a device that torch does not know or reach."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device: {name!r} is unknown; write cpu, cuda, cuda:1 or mps") from error
    reachable = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device.type in reachable and not reachable[device.type]():
        raise UsageError(f"device: {name} is not to be had here (torch {torch.__version__})")
    return device
