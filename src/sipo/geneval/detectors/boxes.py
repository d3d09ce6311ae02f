"""From a network's boxes to detections in pixels of the picture, with non-maximum suppression."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sipo.geneval.detectors import Found
from sipo.geneval.rules import Box, Detection


def to_pixels(boxes: Tensor, canvas: tuple[int, int], picture: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(N, 4) as centre and size in shares of `canvas` -> (N, 4) x0, y0, x1, y1 in pixels, clipped to the picture.

    `canvas` and `picture` are (width, height) in pixels; they differ where the network saw a padded picture. The second
    result (N,) marks the boxes with an area within the picture.
    """
    center, size = boxes.split(2, dim=-1)
    corners = torch.cat([center - size / 2, center + size / 2], dim=-1) * torch.tensor([*canvas, *canvas])
    inside = corners.clamp(min=0).minimum(torch.tensor([*picture, *picture], dtype=corners.dtype))
    return inside, (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])


def collect(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[str], max_overlap: float
) -> Found:
    """Detections by class, sorted by falling score; of two of a class that overlap more, the worse one is suppressed.

    `max_overlap` is an intersection over union; at 1 everything stays.
    """
    found: Found = {}
    for box, score, label in sorted(zip(boxes, scores, labels, strict=True), key=lambda entry: -entry[1]):
        kept = found.setdefault(label, [])
        x0, y0, x1, y1 = box
        if all(overlap((x0, y0, x1, y1), other.box) <= max_overlap for other in kept):
            kept.append(Detection((x0, y0, x1, y1), score))
    return found


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 where neither has an area."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = _area(a) + _area(b) - width * height
    return min(width * height / union, 1.0) if union > 0 else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
