import math

import numpy as np
import pytest

from sipo.evaluate.report.columns import Columns
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


def by_matrix(records, key):
    """The same sums from all records at once, as they were made before they were added up one by one."""
    bins = [r["bins"] for r in records if r.get("bins") and any(v is not None for v in r["bins"].get(key) or [])]
    bins = [b for b in bins if b["edges"] == bins[-1]["edges"]]
    means, counts = (np.array([b[name] for b in bins], dtype=np.float64) for name in (key, "count"))
    counts[~np.isfinite(means)] = 0
    return (np.where(counts > 0, means, 0.0) * counts).sum(0), counts.sum(0)


def test_one_pass_gives_what_all_records_at_once_give():
    """Bit for bit: curves and sums by bin of several keys, with gaps, NaN, other edges, and a tail alone for the bins."""
    rng, records = np.random.default_rng(0), []
    for step in range(1, 900):
        edges = [0, 500, 1000] if rng.random() < 0.1 else [0, 250, 500, 1000]
        w, v = ([None if rng.random() < 0.2 else float(rng.normal()) for _ in edges[1:]] for _ in "wv")
        counts = rng.integers(0, 5, len(edges) - 1).tolist()
        record = {
            "step": step,
            "loss": float(rng.normal()),
            "bins": {"edges": edges, "count": counts, "w": w, "v": v},
        }
        if rng.random() < 0.1:
            record |= {"loss": float("nan"), "bins": None}
        records.append(record)
    found = Columns(records, ["loss", "w", "v", "absent"], late=400)
    for key in ("w", "v"):
        sums, total = by_matrix(records[400:], key)
        _, means, counts = binned(found, key)
        assert (counts == total).all()
        assert (means == sums / total).all()
    points = [(r["step"], r["loss"]) for r in records if np.isfinite(r["loss"])]
    steps, values = (np.array(part) for part in found.points["loss"])
    assert list(zip(steps, values, strict=True)) == points
    assert curve(found, "absent") is binned(found, "absent") is None


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
