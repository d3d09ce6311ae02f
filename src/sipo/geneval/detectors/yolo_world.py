"""YOLO-World by an adapter, for users who installed ultralytics themselves (AGPL-3.0; it needs torchvision)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from PIL import Image

from sipo.errors import UserError
from sipo.geneval.detectors import Found
from sipo.geneval.detectors.boxes import collect
from sipo.geneval.rules import Thresholds


@dataclass(frozen=True)
class YoloWorld:
    """YOLO-World, open vocabulary, by ultralytics, whose own suppression applies (`max_overlap`).

    Raises UserError without ultralytics.
    """

    weights: str = "yolov8x-worldv2.pt"
    device: str = "auto"
    floor: float = 0.1
    max_overlap: float = 0.5

    thresholds: ClassVar[Thresholds | None] = None
    names_colors: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"yolo-world {self.weights}"

    @cached_property
    def _model(self) -> Any:
        try:
            from ultralytics import YOLOWorld  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                f"The detector yolo-world needs the package ultralytics, which cannot be imported here ({error}). It is "
                "under AGPL-3.0 and no part of this package: install it yourself, or use owlv2 or grounding-dino."
            ) from error
        return YOLOWorld(self.weights)

    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]:
        model, names = self._model, list(classes)
        model.set_classes(names)
        device = None if self.device == "auto" else self.device
        pictures = [image.convert("RGB") for image in images]
        results = model.predict(pictures, conf=self.floor, iou=self.max_overlap, device=device, verbose=False)
        return [_found(result, names) for result in results]


def _found(result: Any, names: list[str]) -> Found:
    """One result of ultralytics: `boxes` with xyxy (N, 4) in pixels, conf (N,), cls (N,)."""
    boxes = result.boxes
    labels = [names[int(index)] for index in boxes.cls.tolist()]
    return collect(boxes.xyxy.tolist(), boxes.conf.tolist(), labels, max_overlap=1.0)
