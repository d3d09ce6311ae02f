"""Finds the world's shapes in a picture by rule, without a network: GenEval-style detections with colours.

The background is the median of the picture's rim. What differs from it falls into connected blobs. A blob's colour is
the nearest of the palette in CIELAB, its shape the one whose ideal silhouette overlaps it best; that overlap
(intersection over union, soft at the edges) is the detection's score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from PIL import Image
from scipy import ndimage

from sipo.geneval.rules import Detection, Thresholds
from sipo.mini.world import COLORS, SHAPES, SIZE, silhouette

THRESHOLD = 0.7
"""Least overlap with an ideal silhouette at which a blob counts as an object (a clean one has 0.9 and more)."""

CONTRAST = 42.0
"""Least distance from the background, in 8-bit sRGB, of a pixel that belongs to a blob."""

MIN_AREA = 40.0
"""Least area of an object in pixels; the world's smallest has 120."""


@dataclass(frozen=True)
class Blob:
    """A connected region that differs from the background; `coverage` (64, 64): the share of each pixel it fills."""

    box: tuple[int, int, int, int]
    rgb: np.ndarray
    coverage: np.ndarray
    shape: str
    fit: float

    @property
    def area(self) -> float:
        return float(self.coverage.sum())

    @property
    def is_object(self) -> bool:
        return self.fit >= THRESHOLD and self.area >= MIN_AREA


def to_array(image: Image.Image) -> np.ndarray:
    """(64, 64, 3) float64 in [0, 255]; pictures of another size are resized."""
    image = image.convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float64)


def background_color(pixels: np.ndarray) -> np.ndarray:
    """(3,) median over the picture's rim, two pixels wide."""
    rim = np.ones(pixels.shape[:2], dtype=bool)
    rim[2:-2, 2:-2] = False
    return np.median(pixels[rim], axis=0)


def find_blobs(pixels: np.ndarray) -> list[Blob]:
    """Every blob of at least four pixels in (64, 64, 3) `pixels`, in reading order."""
    background = background_color(pixels)
    distance = np.linalg.norm(pixels - background, axis=-1)
    labels, _ = ndimage.label(distance > CONTRAST)  # pyright: ignore[reportGeneralTypeIssues]  # a pair
    blobs = []
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[window] == label
        if region.sum() >= 4:
            blobs.append(_measure(pixels, background, labels == label, distance))
    return blobs


def _measure(pixels: np.ndarray, background: np.ndarray, region: np.ndarray, distance: np.ndarray) -> Blob:
    core = region & (distance >= np.median(distance[region]))  # without the antialiased edge
    rgb = np.median(pixels[core], axis=0)
    contrast = rgb - background
    coverage = np.clip((pixels - background) @ contrast / max(contrast @ contrast, 1e-9), 0, 1)
    coverage = np.where(ndimage.binary_dilation(region), coverage, 0.0)
    box = _box(coverage >= 0.5, region)
    fits = {shape: _overlap(coverage, shape, box) for shape in SHAPES}
    best = max(fits, key=fits.__getitem__)
    return Blob(box, rgb, coverage, best, fits[best])


def _box(mask: np.ndarray, fallback: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask if mask.any() else fallback)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@cache
def _ideal(shape: str, width: int, height: int) -> np.ndarray:
    return silhouette(shape, (0, 0, width, height), width, height)


def _overlap(coverage: np.ndarray, shape: str, box: tuple[int, int, int, int]) -> float:
    """Soft intersection over union with the ideal shape, lowered where the box is far from that shape's proportions."""
    x0, y0, x1, y1 = box
    ideal = _ideal(shape, x1 - x0, y1 - y0)
    common = np.minimum(coverage[y0:y1, x0:x1], ideal).sum()
    union = coverage.sum() + ideal.sum() - common
    aspect = (x1 - x0) / (y1 - y0)
    stretch = max(aspect / _aspect(shape), _aspect(shape) / aspect)
    return float(common / union) * min(1.0, 1.35 / stretch)


@cache
def _aspect(shape: str) -> float:
    outline = np.array(SHAPES[shape])
    width, height = outline.max(axis=0) - outline.min(axis=0)
    return float(width / height)


_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 255] -> CIELAB under D65."""
    linear = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def name_color(rgb: np.ndarray) -> str:
    """The palette's nearest colour to (3,) sRGB `rgb`, by distance in CIELAB."""
    palette = _lab(np.array(list(COLORS.values())))
    nearest = np.linalg.norm(palette - _lab(np.clip(rgb, 0, 255)), axis=-1).argmin()
    return list(COLORS)[int(nearest)]


def detections_of(blobs: list[Blob]) -> dict[str, list[Detection]]:
    """Blobs that are objects, by class, the best fit first."""
    found: dict[str, list[Detection]] = {}
    for blob in sorted(blobs, key=lambda blob: -blob.fit):
        if blob.is_object:
            found.setdefault(blob.shape, []).append(Detection(blob.box, blob.fit, name_color(blob.rgb)))
    return found


def detect(image: Image.Image) -> dict[str, list[Detection]]:
    """Objects in `image` by class, sorted by falling score; scores are in [THRESHOLD, 1]."""
    return detections_of(find_blobs(to_array(image)))


@dataclass(frozen=True)
class MiniatureDetector:
    """Rules: the miniature's five shapes and their colours, whatever the classes.

    A score is the overlap with the ideal shape, at least THRESHOLD.
    """

    name: str = "miniature"

    thresholds: ClassVar[Thresholds | None] = Thresholds(score=0.0, counting=0.0)
    names_colors: ClassVar[bool] = True

    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[dict[str, list[Detection]]]:
        return [detect(image) for image in images]
