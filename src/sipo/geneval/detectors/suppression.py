"""From scored boxes to detections by class, without near-copies of one object."""

from collections.abc import Sequence

from sipo.geneval.detectors.protocol import Found
from sipo.geneval.rules import Box, Detection


def collect(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[str], max_overlap: float
) -> Found:
    """Detections by class, sorted by falling score; of two of a class that overlap more, the better one stays.

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
