import numpy as np
import pytest
from scipy import stats

from sipo.evaluate.bootstrap import bootstrap_mean


def test_interval_agrees_with_scipy_when_every_prompt_has_one_picture():
    values = np.random.default_rng(1).gamma(2.0, size=80)
    ours = bootstrap_mean(values, range(80), num_resamples=40_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=40_000, method="percentile", rng=2).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * values.std())


def test_interval_agrees_with_scipy_when_prompts_have_several_pictures():
    """scipy resamples (sum, size) of each prompt together and takes the ratio of their totals."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(50), rng.integers(1, 6, 50))
    values = rng.normal(size=50)[groups] + 0.1 * rng.normal(size=len(groups))  # pictures of one prompt resemble each other
    sums, sizes = np.bincount(groups, values), np.bincount(groups)
    theirs = stats.bootstrap(
        (sums, sizes), lambda s, n, axis: s.sum(axis) / n.sum(axis), paired=True, vectorized=True,
        n_resamples=40_000, method="percentile", rng=4,
    ).confidence_interval  # fmt: skip
    ours = bootstrap_mean(values, groups.tolist(), num_resamples=40_000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_interval_is_wider_when_pictures_of_a_prompt_agree():
    """Four copies of each value carry no more information than one: a bootstrap over pictures would halve the interval."""
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
    """Over many data sets of 120 fair comparisons at p = 0.6, the 95% interval holds p about 95% of the time."""
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(400):
        estimate = bootstrap_mean(rng.random(120) < 0.6, range(120), num_resamples=400, seed=trial)
        hits += estimate.low <= 0.6 <= estimate.high
    assert 0.915 <= hits / 400 <= 0.975  # binomial noise of 400 trials: +-0.022 at two sigma, plus undercoverage at n = 120


def test_interval_width_is_the_normal_approximation_for_many_prompts():
    values = (np.random.default_rng(8).random(2_000) < 0.7).astype(float)
    estimate = bootstrap_mean(values, range(2_000), num_resamples=4_000)
    expected = 2 * 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 2_000)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.05)


def test_one_prompt_gives_no_interval():
    assert bootstrap_mean([0.2, 0.9], ["a", "a"]).low is None


@pytest.mark.parametrize(("values", "groups"), [([], []), ([1.0], ["a", "b"])])
def test_mismatched_input_is_refused(values, groups):
    with pytest.raises(ValueError, match="as many groups as values"):
        bootstrap_mean(values, groups)
