"""Mask2Former trained on COCO's instances, over transformers: the architecture that GenEval's own evaluator detects with.

The official evaluator takes mmdetection's Mask2Former (Swin-S, 50 epochs); the default here is the original authors'
checkpoint of the same architecture and schedule, whose figures may differ. Resizing and scores follow
open-mmlab/mmdetection 2 (its configs of mask2former, and maskformer_fusion_head.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

from sipo.errors import UserError
from sipo.geneval.detectors import Found
from sipo.geneval.rules import Detection, Thresholds
from sipo.geneval.vocabulary import COCO
from sipo.scorers.network import DTYPES, require_settings, resolve_device
from sipo.scorers.weights import load_model

MAX_OBJECTS = 100  # of a picture


@dataclass(frozen=True)
class Mask2Former:
    """Mask2Former: detections with masks, of COCO's classes only; a score is the class's probability times the mask's mean one.

    Raises UserError where `weights` (a folder or hub id) do not load, or for classes that COCO lacks.
    """

    weights: str = "facebook/mask2former-swin-small-coco-instance"
    device: str = "auto"
    dtype: str = "float32"
    floor: float = 0.1
    short_side: int = 800  # pixels to which the shorter side of a picture is resized, the longer one at most 1333
    long_side: int = 1333

    thresholds: ClassVar[Thresholds | None] = Thresholds()
    names_colors: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_settings(self.device, self.dtype, 1)

    @property
    def name(self) -> str:
        return f"mask2former {self.weights}"

    @cached_property
    def _model(self) -> Mask2FormerForUniversalSegmentation:
        model = load_model(Mask2FormerForUniversalSegmentation, self.weights, DTYPES[self.dtype], self.weights)
        if model.config.num_labels != len(COCO):
            found = model.config.num_labels
            raise UserError(f"weights: {self.weights} has {found} classes, not the 80 of COCO's instances")
        return model.to(resolve_device(self.device))

    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]:
        unknown = [name for name in classes if name not in COCO]
        if unknown:
            raise UserError(
                f"mask2former detects COCO's 80 classes, not {', '.join(unknown)}: use an open-vocabulary detector."
            )
        return [self._detect(image.convert("RGB"), set(classes)) for image in images]

    @torch.inference_mode()
    def _detect(self, image: Image.Image, classes: set[str]) -> Found:
        size = {"shortest_edge": self.short_side, "longest_edge": self.long_side}
        inputs = Mask2FormerImageProcessorPil(size=size)([image], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._model.device, self._model.dtype)
        outputs = self._model(pixel_values=pixels, pixel_mask=inputs["pixel_mask"].to(self._model.device))
        probabilities, labels, queries = best_classes(outputs.class_queries_logits[0].float())
        likely = probabilities > self.floor  # what a mask can only lower
        masks = outputs.masks_queries_logits[0, queries[likely]].float()
        seen = inputs["pixel_mask"][0].bool()
        inner = int(seen.any(1).sum()), int(seen.any(0).sum())  # height and width without the padding
        masks = to_picture(masks, pixels.shape[-2:], inner, image.size[::-1])
        found: Found = {}
        for probability, label, mask in zip(probabilities[likely], labels[likely], masks, strict=True):
            outline, name = mask > 0, COCO[int(label)]
            score = float(probability * (mask.sigmoid() * outline).sum() / (outline.sum() + 1e-6))
            if name in classes and score > self.floor:
                found.setdefault(name, []).append(Detection(box_of(outline), score, mask=outline.cpu().numpy()))
        return {name: sorted(group, key=lambda d: -d.score) for name, group in found.items()}


def best_classes(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, classes + 1) logits -> of the 100 likeliest (query, class): probability, class, query. A query may come twice."""
    probabilities = logits.softmax(dim=-1)[:, :-1]  # the last one is "no object"
    best, places = probabilities.flatten().topk(min(MAX_OBJECTS, probabilities.shape[0]))
    return best, places % probabilities.shape[1], places // probabilities.shape[1]


def to_picture(masks: Tensor, padded: Sequence[int], inner: tuple[int, int], picture: Sequence[int]) -> Tensor:
    """Mask logits (N, h, w) at the network's scale -> (N, height, width) at the picture's; sizes are height, width."""
    if not len(masks):
        return masks.new_zeros(0, *picture)
    masks = interpolate(masks[None], tuple(padded), mode="bilinear", align_corners=False)[..., : inner[0], : inner[1]]
    return interpolate(masks, tuple(picture), mode="bilinear", align_corners=False)[0]


def box_of(outline: Tensor) -> tuple[float, float, float, float]:
    """The smallest x0, y0, x1, y1 around a (height, width) mask of bool; zeros around an empty one."""
    rows, columns = outline.any(1).nonzero().flatten(), outline.any(0).nonzero().flatten()
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1
