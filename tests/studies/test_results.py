import math

import pytest
from scipy import stats

from sipo.studies.results import Row, as_csv, over_seeds, summarise


def test_the_interval_is_students():
    values = [0.2, 0.5, 0.35, 0.4]
    found = summarise(values)
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert (found.low, found.high, found.count) == (pytest.approx(low), pytest.approx(high), 4)


def test_one_seed_has_no_interval_and_a_missing_value_counts_for_nothing():
    assert summarise([0.3, math.nan]).mean == 0.3
    assert math.isnan(summarise([0.3]).low)
    assert summarise([math.nan]).count == 0


def test_seeds_are_averaged_by_setting_and_step():
    rows = [
        Row({"beta": b}, seed, step, {"score": float(seed) + step}) for b in "12" for seed in (0, 2) for step in (4, 8)
    ]
    found = over_seeds(rows, "score")
    assert {key: summary.mean for key, summary in found.items()} == {
        (("1",), 4): 5.0, (("1",), 8): 9.0, (("2",), 4): 5.0, (("2",), 8): 9.0
    }  # fmt: skip


def test_the_csv_has_every_run_and_step():
    rows = [Row({"beta": "1"}, 0, 0, {"score": 0.5}), Row({"beta": "1"}, 0, 4, {"score": 0.25, "loss": 1 / 3})]
    assert as_csv(rows) == "beta,seed,step,score,loss\n1,0,0,0.5,\n1,0,4,0.25,0.333333\n"
