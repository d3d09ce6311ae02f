"""What all scorers have that run a network: where, in what precision, in what portions."""

from dataclasses import dataclass
from typing import Any

from sipo.scorers.base import recorded
from sipo.scorers.hardware import require_settings


@dataclass(frozen=True, kw_only=True)
class NetworkScorer:
    """The fields of such a scorer, a frozen dataclass with fields of its own.

    device: auto, cpu, cuda, cuda:1 or mps. dtype: of the network, a key of `hardware.DTYPES`. batch_size: media at once.
    Raises UsageError for what cannot be.
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
