"""How far data lies from the base's own samples, against closed forms and scipy."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from sipo.profile.unlike import Errors, log_ratios, separation


def test_a_ratio_is_the_geometric_mean_of_ratios_by_stratum():
    own = np.array([[1.0, 10.0], [4.0, 1000.0]])  # geometric means 2 and 100
    assert log_ratios(np.array([[2.0, 100.0], [4.0, 50.0], [6.0, 300.0]]), own) == pytest.approx([0, 0, np.log(3)])


def test_a_common_factor_of_a_stratum_changes_nothing():
    rng = np.random.default_rng(0)
    errors, own, scale = rng.gamma(3, size=(7, 5)), rng.gamma(3, size=(4, 5)), rng.gamma(3, size=5)
    np.testing.assert_allclose(log_ratios(errors * scale, own * scale), log_ratios(errors, own))


def test_separation_is_mann_whitneys_statistic():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 40).astype(float), rng.integers(2, 12, 30).astype(float)  # with ties
    assert separation(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / (40 * 30))
    assert separation(b + 20, a) == 1


def test_weights_are_those_of_the_closed_form():
    found = Errors(np.array([[0.1, 0.2]]), np.array([[1.0, 0.5]])).weights
    np.testing.assert_allclose(found, np.exp([[-0.1, -0.1]]))
