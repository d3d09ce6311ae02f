import math

import numpy as np
import pytest

from sipo.evaluate.report.panels import TRAINING
from sipo.evaluate.report.plots import binned, curve, draw_curves, moving_average


def test_moving_average_is_the_mean_of_the_neighbours_that_exist():
    values = np.random.default_rng(0).normal(size=23)
    expected = [values[max(0, i - 2) : i + 3].mean() for i in range(23)]
    assert moving_average(values, 5) == pytest.approx(expected)
    assert moving_average(values, 1) == pytest.approx(values)


def test_few_points_are_kept_as_they_are():
    found = curve([{"step": s, "loss": s * 2.0} for s in (1, 2, 5)], "loss")
    assert found.steps.tolist() == [1, 2, 5]
    assert found.raw.tolist() == [2, 4, 10]


def test_many_points_are_thinned_to_means_that_keep_the_total():
    values = np.random.default_rng(1).normal(size=10_000)
    found = curve([{"step": i + 1, "loss": v} for i, v in enumerate(values)], "loss", max_points=250)
    assert len(found.raw) == 250
    assert found.raw.mean() == pytest.approx(values.mean())
    assert found.raw[0] == pytest.approx(values[:40].mean())


def test_gaps_and_missing_keys():
    records = [{"step": 1, "w": None}, {"step": 2}, {"step": 3, "w": math.nan}, {"step": 4, "w": 0.5}]
    assert curve(records, "w").steps.tolist() == [4]
    assert curve(records, "absent") is None


def test_bins_are_weighted_by_their_pairs():
    """The mean over all pairs, whatever step they came in: (2 x 1 + 6 x 5) / 8 in the first bin."""
    records = [
        {"step": 1, "bins": {"edges": [0, 500, 1000], "count": [2, 0], "w": [1.0, None]}},
        {"step": 2, "bins": {"edges": [0, 500, 1000], "count": [6, 3], "w": [5.0, 7.0]}},
        {"step": 3},
    ]
    edges, means, counts = binned(records, "w")
    assert edges.tolist() == [0, 500, 1000]
    assert means.tolist() == [4.0, 7.0]
    assert counts.tolist() == [8, 3]


def test_an_empty_bin_is_a_gap():
    _, means, _ = binned([{"step": 1, "bins": {"edges": [0, 1, 2], "count": [1, 0], "w": [1.0, None]}}], "w")
    assert means[0] == 1
    assert math.isnan(means[1])
    assert binned([{"step": 1, "bins": {"edges": [0, 1], "count": [0], "w": [None]}}], "w") is None


def test_a_panel_draws_the_series_that_the_objective_records():
    panel = next(panel for panel in TRAINING if panel.name == "selection")
    capped = draw_curves(panel, [{"step": step, "capped": 0.1 * step} for step in range(5)])
    pruned = draw_curves(panel, [{"step": step, "pruned": 0.1 * step} for step in range(5)])
    assert [("beyond the cap" in each.svg, ">pruned<" in each.svg) for each in (capped, pruned)] == [
        (True, False),
        (False, True),
    ]
    assert draw_curves(panel, [{"step": 1, "loss": 0.7}]) is None
