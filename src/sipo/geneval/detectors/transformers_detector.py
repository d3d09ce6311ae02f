"""What the open-vocabulary detectors over transformers share: their settings, and how their parts load."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from sipo.geneval.rules import Thresholds
from sipo.scorers.network import DTYPES, require_settings, resolve_device
from sipo.scorers.weights import load_model, load_tokenizer


@dataclass(frozen=True)
class TransformersDetector:
    """The fields of such a detector, which adds its classes and the default of `weights`, a folder or hub id.

    floor: detections that score less are dropped. max_overlap: of two boxes of a class whose intersection over union is
    larger, the worse one is dropped. Raises UserError at the first call where a part does not load.
    """

    kind: ClassVar[str]
    network: ClassVar[Any]
    processor: ClassVar[Any]
    tokenizer: ClassVar[Any]
    thresholds: ClassVar[Thresholds | None] = None
    names_colors: ClassVar[bool] = False

    weights: str
    device: str = "auto"
    dtype: str = "float32"
    floor: float = 0.1
    max_overlap: float = 0.5

    def __post_init__(self) -> None:
        require_settings(self.device, self.dtype, 1)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.weights}"

    @cached_property
    def _model(self) -> Any:
        model = load_model(self.network, self.weights, DTYPES[self.dtype], self.weights)
        return model.to(resolve_device(self.device))

    @cached_property
    def _processor(self) -> Any:
        return load_tokenizer(self.processor, self.weights)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.tokenizer, self.weights)
