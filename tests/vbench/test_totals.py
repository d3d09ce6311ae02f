"""The aggregation against a second writing of the published constants, and against a paper's printed rows."""

import numpy as np
import pytest

from sipo.vbench.totals import DIMENSIONS, QUALITY, SEMANTIC, aggregate, total

NAMES = [
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "aesthetic_quality",
    "imaging_quality", "dynamic_degree", "object_class", "multiple_objects", "human_action", "color",
    "spatial_relationship", "scene", "appearance_style", "temporal_style", "overall_consistency",
]  # fmt: skip
LOW = np.array([0.1462, 0.2615, 0.6293, 0.7060, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0009, 0, 0])
HIGH = np.array([1, 1, 1, 0.9975, 1, 1, 1, 1, 1, 1, 1, 1, 0.8222, 0.2855, 0.364, 0.364])
WEIGHTS = np.array([1, 1, 1, 1, 1, 1, 0.5] + [1] * 9)

PRINTED = [  # Table 1 of the paper: total, quality, semantic
    (80.91, 82.18, 75.83), (81.16, 82.32, 76.49), (81.37, 82.55, 76.69), (81.53, 82.74, 76.71),
    (67.28, 68.37, 62.93), (81.46, 82.65, 76.72), (81.68, 82.92, 76.76), (81.91, 83.05, 77.33),
    (82.02, 83.15, 77.50), (82.17, 83.26, 77.81), (82.28, 83.37, 77.91), (84.26, 85.30, 80.09),
    (84.54, 85.51, 80.67), (84.78, 85.73, 81.02),
]  # fmt: skip


@pytest.mark.parametrize(("printed", "quality", "semantic"), PRINTED)
def test_printed_rows_obey_the_formula(printed, quality, semantic):
    assert total(quality, semantic) == pytest.approx(printed, abs=0.01)


def test_one_printed_row_does_not():
    """Wan2.1 with Diffusion-DPO is printed as 84.41; its own quality and semantic give 84.34."""
    assert total(85.32, 80.44) == pytest.approx(84.344, abs=0.001)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_second_writing(seed):
    raw = np.random.default_rng(seed).uniform(0, 1, 16)
    scaled = (raw - LOW) / (HIGH - LOW) * WEIGHTS
    quality, semantic = scaled[:7].sum() / 6.5, scaled[7:].sum() / 9
    found = aggregate(dict(zip(NAMES, raw.tolist(), strict=True)))
    assert found == pytest.approx({"quality": quality, "semantic": semantic, "total": 0.8 * quality + 0.2 * semantic})


@pytest.mark.parametrize(("name", "low", "high"), zip(NAMES, LOW, HIGH, strict=True))
def test_every_dimensions_bounds(name, low, high):
    assert DIMENSIONS[name].normalise(low) == pytest.approx(0)
    assert DIMENSIONS[name].normalise(high) == pytest.approx(1)


def test_the_bounds_of_all_are_the_bounds_of_the_total():
    assert aggregate(dict(zip(NAMES, HIGH.tolist(), strict=True)))["total"] == pytest.approx(1)
    assert aggregate(dict(zip(NAMES, LOW.tolist(), strict=True)))["total"] == pytest.approx(0)
    assert (len(QUALITY), len(SEMANTIC)) == (7, 9)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_dimension_is_named(name):
    scores = dict.fromkeys(NAMES, 0.5)
    del scores[name]
    with pytest.raises(ValueError, match=rf"missing: {name}\)"):
        aggregate(scores)


def test_unknown_and_broken_dimensions_are_named():
    scores = dict.fromkeys(NAMES, 0.5) | {"scene": float("nan"), "subject consistency": 0.9}
    with pytest.raises(ValueError, match=r"unknown: subject consistency; out of range: scene"):
        aggregate(scores)
