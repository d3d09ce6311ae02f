"""The colour of a detected object, by CLIP ViT-L/14 on its box (djghosh13/geneval: evaluation/evaluate_images.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from sipo.geneval.rules import Detection
from sipo.geneval.vocabulary import COLORS
from sipo.scorers.clip import VIT_L, Clip, load_clip
from sipo.scorers.network import require_settings
from sipo.scorers.preprocess import crop_pixels
from sipo.scorers.weights import companion

TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = "#999"


@dataclass(frozen=True)
class ClipColors:
    """Names the colour whose mean text feature over the three templates is nearest to the crop's.

    `weights`: a folder or hub id of a CLIP, the official one by default. Raises UserError where it does not load.
    """

    weights: str = VIT_L
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_settings(self.device, self.dtype, 1)

    @cached_property
    def _clip(self) -> Clip:
        return load_clip(self.weights, self.device, self.dtype, companion(self.weights, None, VIT_L))

    @cached_property
    def _classifiers(self) -> dict[str, Tensor]:
        return {}

    def __call__(self, image: Image.Image, detections: Sequence[Detection], name: str) -> list[str]:
        if not detections:
            return []
        if name not in self._classifiers:
            self._classifiers[name] = self._classifier(name)
        crops = [crop_object(image, detection) for detection in detections]
        features = self._clip.image_features(crops, crop_pixels)  # (B, D)
        return [COLORS[index] for index in (features @ self._classifiers[name].T).argmax(dim=-1).tolist()]

    def _classifier(self, name: str) -> Tensor:
        """(10, D): a unit vector a colour, the direction of the mean of its templates' unit features."""
        texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
        features = self._clip.text_features(texts).reshape(len(COLORS), len(TEMPLATES), -1)
        return normalize(features.mean(dim=1), dim=-1)


def crop_object(image: Image.Image, detection: Detection) -> Image.Image:
    """The box's part of the picture; with a mask, everything outside it is grey."""
    image = image.convert("RGB")
    if detection.mask is not None:
        mask = Image.fromarray(np.asarray(detection.mask, dtype=bool))
        image = Image.composite(image, Image.new("RGB", image.size, BACKGROUND), mask)
    x0, y0, x1, y1 = detection.box
    left, top = min(round(x0), image.width - 1), min(round(y0), image.height - 1)
    right, bottom = max(round(x1), left + 1), max(round(y1), top + 1)  # a sliver of a box still has a pixel
    return image.crop((left, top, right, bottom))
