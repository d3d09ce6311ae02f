"""GenEval's official rules as a pure function of detections (djghosh13/geneval: evaluation/evaluate_images.py)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SHRINK = 0.1
"""Each component of an offset is shrunk by this share of the summed box sizes: overlapping objects have no relation."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One found object: `box` is x0, y0, x1, y1 in pixels (y down), `score` the detector's confidence.

    `mask` is the object's outline where the detector draws one: a (height, width) array of bool over the picture. Only
    the naming of colours uses it.
    """

    box: Box
    score: float
    color: str | None = None
    mask: object = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Thresholds:
    """Which detections count: those above `score` (above `counting` for prompts of that tag), so many of a class.

    Per-class non-maximum suppression at the intersection over union `max_overlap`; 1 suppresses nothing. The
    defaults are the official evaluator's, and belong to its detector (Mask2Former on COCO).
    """

    score: float = 0.3
    counting: float = 0.9
    max_per_class: int = 16
    max_overlap: float = 1.0

    def keep(self, detections: Mapping[str, Sequence[Detection]], tag: str) -> dict[str, list[Detection]]:
        """The detections that count for a prompt of category `tag`, by class, sorted by falling score."""
        least = self.counting if tag == "counting" else self.score
        kept = {
            name: sorted((d for d in found if d.score > least), key=lambda d: -d.score)[: self.max_per_class]
            for name, found in detections.items()
        }
        return {name: self._apart(found) for name, found in kept.items() if found}

    def _apart(self, found: list[Detection]) -> list[Detection]:
        chosen: list[Detection] = []
        for detection in found:
            if self.max_overlap >= 1 or all(_overlap(detection.box, c.box) < self.max_overlap for c in chosen):
                chosen.append(detection)
        return chosen


@dataclass(frozen=True)
class Judgement:
    """`correct`, and in `reasons` one sentence for each rule that was broken (empty when correct)."""

    correct: bool
    reasons: tuple[str, ...] = ()


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union as the official evaluator counts it: both corners' pixels belong to the box."""
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - shared
    return shared / union if union else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0.0) * max(box[3] - box[1] + 1, 0.0)


def relations(a: Box, b: Box) -> set[str]:
    """Where box `a` lies relative to box `b`: a subset of {left of, right of, above, below}.

    The centres' offset is shrunk, component by component, by SHRINK x (dim_a + dim_b), not below 0, and divided by
    the norm of the offset before shrinking; a component beyond +-0.5 is a relation.
    """
    offset = [(a[k] + a[k + 2]) / 2 - (b[k] + b[k + 2]) / 2 for k in (0, 1)]
    reach = [SHRINK * (abs(a[k + 2] - a[k]) + abs(b[k + 2] - b[k])) for k in (0, 1)]
    shrunk = [math.copysign(max(abs(o) - r, 0.0), o) for o, r in zip(offset, reach, strict=True)]
    if all(abs(component) < 1e-3 for component in shrunk):
        return set()
    norm = math.hypot(*offset)
    dx, dy = shrunk[0] / norm, shrunk[1] / norm
    named = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in named.items() if holds}


def judge(metadata: dict, detections: dict[str, list[Detection]]) -> Judgement:
    """Judge one picture's detections, already thresholded and sorted by falling score, against its prompt's metadata.

    Every `include` clause must hold, and no `exclude` clause may. A clause looks at the first `count` detections of
    its class; a position is checked for each of them against each of the target clause's, and fails when that clause
    failed. A position may refer to an earlier clause only (`IndexError` otherwise, as in the official code).
    """
    reasons: list[str] = []
    groups: list[Sequence[Detection] | None] = []
    for clause in metadata.get("include", []):
        found = detections.get(clause["class"], [])[: clause["count"]]
        fault = _fault(clause, found, groups)
        groups.append(None if fault else found)
        reasons += [fault] if fault else []
    for clause in metadata.get("exclude", []):
        number = len(detections.get(clause["class"], []))
        if number >= clause["count"]:
            reasons.append(f"expected {clause['class']} < {clause['count']}, found {number}")
    return Judgement(not reasons, tuple(reasons))


def _fault(clause: dict, found: Sequence[Detection], groups: list) -> str | None:
    """Why the detections `found` break an include clause, or None."""
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return f"expected {name} >= {count}, found {len(found)}"
    if "color" in clause:
        colors = [detection.color for detection in found]
        if colors.count(clause["color"]) < count:
            seen = ", ".join(str(color) for color in colors) or "none"
            return f"expected {clause['color']} {name} >= {count}, found {seen}"
    if "position" in clause:
        relation, target = clause["position"]
        if groups[target] is None:
            return f"no target for {name} to be {relation}"
        for detection in found:
            for other in groups[target]:
                seen = relations(detection.box, other.box)
                if relation not in seen:
                    return f"expected {name} {relation} target, found {' and '.join(sorted(seen)) or 'no relation'}"
    return None
