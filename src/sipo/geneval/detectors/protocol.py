"""What a detector and a namer of colours are to GenEval's judge. Nothing here needs torch."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from sipo.geneval.rules import Detection

Found = dict[str, list[Detection]]
"""One picture's detections by class name; boxes in pixels of the picture that was given."""


class Detector(Protocol):
    """RGB pictures (of any sizes) and class names in; one mapping a picture out, before any official threshold.

    `name` says which detector and weights, for the record.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]: ...


class ColorNamer(Protocol):
    """The colour of each detection of class `name` in a picture: one of GenEval's ten."""

    def __call__(self, image: Image.Image, detections: Sequence[Detection], name: str) -> list[str]: ...
