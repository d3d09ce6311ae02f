"""Compared with scipy's own tests, Holm by hand, and what a p-value must do under the null hypothesis."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from sipo.evaluate.statistics import significance as module
from sipo.evaluate.statistics.significance import bootstrap_p, holm, sign_p
from sipo.evaluate.statistics.verdicts import Verdict, result_of


def significance(differences, prompts, tie_margin=0.0):
    return module.significance(
        [
            Verdict(str(p), i, result_of(d, tie_margin), d)
            for i, (d, p) in enumerate(zip(differences, prompts, strict=True))
        ],
        tie_margin,
    )


@pytest.mark.parametrize(("won", "lost"), [(0, 1), (5, 0), (7, 3), (3, 7), (50, 50), (130, 90), (600, 400), (0, 0)])
def test_the_sign_test_sums_the_splits_that_are_at_least_as_uneven(won, lost):
    """By exact integers: of 2^n equally likely sequences, those whose wins are as far from n / 2 or farther."""
    n = won + lost
    as_uneven = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(won - lost))
    assert sign_p(won, lost) == pytest.approx(float(Fraction(as_uneven, 2**n)), rel=1e-9)


def test_the_sign_test_by_hand():
    """Nine of ten: 2 (C(10, 0) + C(10, 1)) / 2^10."""
    assert sign_p(9, 1) == pytest.approx(2 * (1 + 10) / 1024)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.25, 0.4])
def test_the_bootstrap_test_is_close_to_the_t_test_for_normal_differences(shift):
    values = np.random.default_rng(1).normal(shift, size=200)
    assert bootstrap_p(values, range(200)) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_the_bootstrap_test_rejects_as_often_as_it_says():
    """200 data sets without an effect at 5%: 10 expected, standard deviation 3."""
    rng = np.random.default_rng(2)
    found = [bootstrap_p(rng.normal(size=80), range(80), num_resamples=500, seed=i) for i in range(200)]
    assert 2 <= sum(p < 0.05 for p in found) <= 20


def test_pictures_of_a_prompt_are_one_observation():
    """Ten copies of every difference leave both tests as they are."""
    values = np.random.default_rng(3).normal(0.2, size=40)
    once = significance(values, range(40))
    copied = significance(np.repeat(values, 10), np.repeat(np.arange(40), 10).tolist())
    assert copied == once


def test_it_does_not_matter_which_side_comes_first():
    values = np.random.default_rng(4).exponential(size=50) - 0.8
    ab, ba = significance(values, range(50)), significance(-values, range(50))
    assert (ab.p_mean, ab.p_sign) == (ba.p_mean, ba.p_sign)
    assert (ab.prompts_won, ab.prompts_lost) == (ba.prompts_lost, ba.prompts_won)


def test_prompts_within_the_margin_of_a_tie_have_no_part_in_the_sign_test():
    found = significance([1.0, 1.0, 0.3, -0.3, 0.0, -1.0], "abcdef", tie_margin=0.5)
    assert (found.prompts_won, found.prompts_lost, found.prompts_tied) == (2, 1, 3)
    assert found.p_sign == pytest.approx(stats.binomtest(2, 3).pvalue)


def test_no_differences_and_a_single_prompt():
    assert significance([0.0] * 5, range(5)).p_mean == 1.0
    assert significance([0.0] * 5, range(5)).p_sign == 1.0
    assert significance([1.0, 2.0], "aa").p_mean is None


def test_the_smallest_p_value_is_that_of_the_resamples():
    assert bootstrap_p([1.0] * 20, range(20), num_resamples=999) == pytest.approx(1 / 1000)


def test_holm_by_hand():
    """Sorted .005 .01 .03 .04 of four: 4 x .005, 3 x .01, 2 x .03, then 1 x .04, which may not fall below .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_one_test_alone_and_does_not_count_what_was_not_tested():
    assert holm([0.2]) == [0.2]
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_holm_decides_as_the_step_down_procedure_does():
    """Reject while p(i) <= alpha / (m - i), stop at the first that is not."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        p_values = list(rng.random(6) ** 3)
        ordered = sorted(p_values)
        passed = itertools.takewhile(lambda item: item[1] <= 0.05 / (6 - item[0]), enumerate(ordered))
        rejected = {p for _, p in passed}
        assert {p for p, adjusted in zip(p_values, holm(p_values), strict=True) if adjusted <= 0.05} == rejected
