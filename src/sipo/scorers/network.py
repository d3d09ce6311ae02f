"""What the scorers and detectors that run a network share: device, precision, batch size."""

from dataclasses import dataclass
from typing import Any

import torch

from sipo.errors import UsageError
from sipo.scorers.base import recorded

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def require_settings(device: str, dtype: str, batch_size: int) -> None:
    """Raises UsageError for an invalid device, precision or batch size."""
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
        raise UsageError(f"device: {name} is not available on this machine (torch {torch.__version__})")
    return device


@dataclass(frozen=True, kw_only=True)
class NetworkScorer:
    """The fields of such a scorer, a frozen dataclass with fields of its own.

    device: auto, cpu, cuda, cuda:1 or mps. dtype: of the network, a key of `DTYPES`. batch_size: media at once.
    Raises UsageError for an invalid device, dtype or batch size.
    """

    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 16

    def __post_init__(self) -> None:
        require_settings(self.device, self.dtype, self.batch_size)

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on."""
        return recorded(self)
