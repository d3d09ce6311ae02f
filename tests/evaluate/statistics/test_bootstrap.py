import numpy as np
import pytest
from scipy import stats

from sipo.evaluate.statistics.bootstrap import bootstrap_mean


def test_interval_agrees_with_scipy_when_every_prompt_has_one_picture():
    values = np.random.default_rng(1).gamma(2.0, size=80)
    ours = bootstrap_mean(values, range(80), num_resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * values.std())


def test_interval_agrees_with_scipy_when_prompts_have_several_pictures():
    """scipy resamples (sum, size) of each prompt together and takes the ratio of their totals."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(50), rng.integers(1, 6, 50))
    values = rng.normal(size=50)[groups] + 0.1 * rng.normal(size=len(groups))
    sums, sizes = np.bincount(groups, values), np.bincount(groups)
    theirs = stats.bootstrap(
        (sums, sizes), lambda s, n, axis: s.sum(axis) / n.sum(axis), paired=True, vectorized=True,
        n_resamples=20_000, method="percentile", rng=4,
    ).confidence_interval  # fmt: skip
    ours = bootstrap_mean(values, groups.tolist(), num_resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.025)


def test_interval_is_wider_when_pictures_of_a_prompt_agree():
    """Four copies of a value say no more than one, where a bootstrap over pictures would halve the interval."""
    values = np.random.default_rng(5).normal(size=60)
    once = bootstrap_mean(values, range(60))
    copied = bootstrap_mean(np.repeat(values, 4), np.repeat(np.arange(60), 4).tolist())
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_a_constant_has_a_point_for_an_interval():
    estimate = bootstrap_mean([1.0] * 30, range(30))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_negating_the_values_mirrors_the_interval():
    values = np.random.default_rng(6).exponential(size=40)
    plus, minus = bootstrap_mean(values, range(40)), bootstrap_mean(-values, range(40))
    assert (minus.low, minus.high) == pytest.approx((-plus.high, -plus.low), rel=1e-12)


def test_coverage_of_a_binomial_share():
    """Over many data sets of 60 fair comparisons at p = 0.6, the 95% interval holds p about 95% of the time."""
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(300):
        estimate = bootstrap_mean(rng.random(60) < 0.6, range(60), num_resamples=400, seed=trial)
        hits += estimate.low <= 0.6 <= estimate.high
    assert (
        0.905 <= hits / 300 <= 0.98
    )  # two sigma of 300 trials are 0.025; at n = 60 the method itself lacks about 0.01


def test_interval_width_is_the_normal_approximation_for_many_prompts():
    values = (np.random.default_rng(8).random(800) < 0.7).astype(float)
    estimate = bootstrap_mean(values, range(800), num_resamples=4_000)
    expected = 2 * 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 800)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.05)


def test_one_prompt_gives_no_interval():
    assert bootstrap_mean([0.2, 0.9], ["a", "a"]).low is None


@pytest.mark.parametrize(("values", "groups"), [([], []), ([1.0], ["a", "b"])])
def test_mismatched_input_is_refused(values, groups):
    with pytest.raises(ValueError, match="as many groups as values"):
        bootstrap_mean(values, groups)
