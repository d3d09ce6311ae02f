"""VBench's aggregation of sixteen dimensions into Quality, Semantic and Total, with the published constants.

Constants and formulas: Vchitect/VBench, scripts/constant.py and scripts/cal_final_score.py. There a missing dimension
counts as 0; here it is an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """`low` and `high` are the raw scores that become 0 and 1 (nothing is clamped); `weight` counts in the mean.

    A raw score lies between `least` and 1: shares and similarities, of which cosines of texts may be negative.
    """

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    least: float = 0.0

    def normalise(self, raw: float) -> float:
        return (raw - self.low) / (self.high - self.low)


QUALITY = {
    "subject_consistency": Dimension(low=0.1462),
    "background_consistency": Dimension(low=0.2615),
    "temporal_flickering": Dimension(low=0.6293),
    "motion_smoothness": Dimension(low=0.706, high=0.9975),
    "dynamic_degree": Dimension(weight=0.5),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
}
SEMANTIC = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(high=0.8222),
    "appearance_style": Dimension(low=0.0009, high=0.2855, least=-1),
    "temporal_style": Dimension(high=0.364, least=-1),
    "overall_consistency": Dimension(high=0.364, least=-1),
}
DIMENSIONS = QUALITY | SEMANTIC
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4, 1


def total(quality: float, semantic: float) -> float:
    """(4 quality + semantic) / 5, in whatever unit both are given."""
    return (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)


def out_of_range(scores: Mapping[str, float]) -> dict[str, str]:
    """Of each score that cannot be the dimension's, NaN and infinity among them, what is expected in its place."""
    return {
        name: f"a number from {DIMENSIONS[name].least:g} to 1"
        for name, score in scores.items()
        if name in DIMENSIONS and not DIMENSIONS[name].least <= score <= 1
    }


def aggregate(scores: Mapping[str, float]) -> dict[str, float]:
    """`quality`, `semantic` and `total`, as shares of 1 (the papers print percent), of raw scores by dimension.

    The names are the official package's, with underscores. `ValueError` names the dimensions that are missing, unknown
    or out of their range (`out_of_range`).
    """
    missing = [name for name in DIMENSIONS if name not in scores]
    unknown = [name for name in scores if name not in DIMENSIONS]
    problems = {"missing": missing, "unknown": unknown, "out of range": list(out_of_range(scores))}
    if any(problems.values()):
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(f"VBench's total needs its sixteen dimensions ({told}).")
    quality, semantic = _mean(scores, QUALITY), _mean(scores, SEMANTIC)
    return {"quality": quality, "semantic": semantic, "total": total(quality, semantic)}


def _mean(scores: Mapping[str, float], dimensions: Mapping[str, Dimension]) -> float:
    weighted = [dimension.weight * dimension.normalise(scores[name]) for name, dimension in dimensions.items()]
    return math.fsum(weighted) / math.fsum(dimension.weight for dimension in dimensions.values())
