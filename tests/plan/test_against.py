"""Steps of two configs in turn, and the interval of their ratio."""

from itertools import count

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom
from support.configs import changed

from sipo.errors import UsageError
from sipo.plan import against
from sipo.plan.against import Contest, compete, median_interval, render


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (10, 2), (15, 4), (20, 6), (25, 8), (30, 10)])
def test_ranks_of_the_interval_are_those_of_the_tables(n, rank):
    """Conover, Practical Nonparametric Statistics: 95% intervals of the median by the sign test."""
    assert median_interval(list(range(1, n + 1))) == (rank, n + 1 - rank)


@pytest.mark.parametrize("n", [3, 7, 19, 40, 101])
def test_the_interval_is_the_narrowest_that_covers(n):
    low, high = median_interval(list(range(n)))
    assert low + high == n - 1
    assert low == 0 or 2 * binom.cdf(low, n, 0.5) <= 0.05
    assert 2 * binom.cdf(low + 1, n, 0.5) > 0.05


def test_the_interval_covers_a_skewed_median_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        low, high = median_interval(rng.lognormal(sigma=2.0, size=25).tolist())
        covered += low <= 1 <= high
    assert 935 <= covered <= 975  # 95.7% exactly, and 3 standard deviations of 1,000 draws


@pytest.fixture
def clocked(monkeypatch):
    """Steps that take no time but are said to: the second config 1.5 times the first's, on a machine that grows slower."""
    taken, tick = [], count(1)

    def step(t, number, stop):
        side = int(t.run.path.name)
        taken.append((side, number))
        speed = 1 + next(tick) // 2  # of two neighbours alike
        parts = dict.fromkeys(("total", "data", "reference", "policy", "other"), (1.5 if side else 1.0) * speed)
        return type("Update", (), {"seconds": parts})

    monkeypatch.setattr(against, "take_step", step)
    monkeypatch.setattr(against, "WARM_UP", 1)
    return taken


def test_steps_are_taken_in_turn_and_the_warm_up_does_not_count(raw_config, clocked, capsys):
    contest = compete(raw_config, changed(raw_config, "loss.name=diffusion_dpo"), 6, Console(quiet=True))
    assert clocked == [(side, n) for n in range(1, 8) for side in ((0, 1) if n % 2 else (1, 0))]
    assert len(contest.first) == len(contest.second) == 6
    assert 1.4 < np.median(contest.ratios) < 1.6
    render(contest, ("a.yaml", "b[x].yaml"), Console(markup=False, width=200))
    shown = capsys.readouterr().out
    assert "b[x].yaml takes 1." in shown
    assert "6 steps of each in turn" in shown


def test_a_config_against_itself(raw_config, tmp_path):
    raw = changed(raw_config, "data.validation=0.2", "train.sample_every=1", f"data.cache={tmp_path / 'cache'}")
    contest = compete(raw, raw, 4, Console(quiet=True))
    assert all(step["policy"] > 0 for step in (*contest.first, *contest.second))
    assert isinstance(contest, Contest)
    assert not list(tmp_path.glob("run*"))


def test_what_holds_for_the_process_must_be_equal(raw_config):
    with pytest.raises(UsageError, match=r"--against: train\.num_threads differs"):
        compete(raw_config, changed(raw_config, "train.num_threads=2"), 1, Console(quiet=True))
