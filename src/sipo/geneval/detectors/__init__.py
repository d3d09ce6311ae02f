"""What GenEval's judge needs of a detector, and of what names colours. Nothing here needs torch."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from PIL import Image

from sipo.geneval.rules import Detection, Thresholds

Found = dict[str, list[Detection]]
"""One picture's detections by class name; boxes in pixels of the picture that was given."""


class Detector(Protocol):
    """RGB pictures (of any sizes) and class names in; one mapping a picture out, before any official threshold.

    `name` records the detector and its weights. `thresholds` fit its scores; None: none are known, and the official ones
    are applied with a note. `names_colors`: its detections have their colours.
    """

    thresholds: ClassVar[Thresholds | None]
    names_colors: ClassVar[bool]

    @property
    def name(self) -> str: ...

    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]: ...


class ColorNamer(Protocol):
    """The colour of each detection of class `name` in a picture: one of GenEval's ten. `weights` are recorded."""

    @property
    def weights(self) -> str: ...

    def __call__(self, image: Image.Image, detections: Sequence[Detection], name: str) -> list[str]: ...
