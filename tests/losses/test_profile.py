import math

import pytest
import torch
from support.core import f64
from support.terms import from_errors, gradient, random_terms

from sipo import DiffusionDPO
from sipo.losses import ProfileDPO


def test_it_is_the_likelihood_ratio_with_each_variance_fitted():
    """log N(e; 0, v) summed over d dimensions at its best v, policy against reference, times omega r 2 / d."""
    terms = random_terms(5)
    expected = []
    for branch in (terms.chosen, terms.rejected):
        errors = [(prediction - branch.target).flatten(1) for prediction in (branch.policy, branch.reference)]
        variances = [(error**2).mean(1) for error in errors]
        log_likelihoods = [
            torch.distributions.Normal(0.0, variance.sqrt()[:, None]).log_prob(error).sum(1)
            for error, variance in zip(errors, variances, strict=True)
        ]
        ratio = log_likelihoods[0] - log_likelihoods[1]
        expected.append(0.5 * variances[1] * ratio * 2 / errors[0].shape[1])
    loss = ProfileDPO(beta=2.0)(terms)[0]
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(2000 * (expected[0] - expected[1])))


def test_near_the_reference_it_is_diffusion_dpo():
    for error in (1e-3, 1e-4):
        terms = from_errors((0.2 * (1 - error), 0.2 * (1 + error)), (0.2, 0.2))
        (mine,), (theirs,) = ((-loss(beta=1.0)(terms)[0].expm1()).tolist() for loss in (ProfileDPO, DiffusionDPO))
        assert mine == pytest.approx(theirs, rel=2 * error)


@pytest.mark.parametrize(("error", "factor"), [(0.1, 2.0), (0.4, 0.5), (0.8, 0.25)])
def test_the_pull_on_a_member_is_that_of_diffusion_dpo_times_r_over_m(error, factor):
    """At margins that are far from saturation, d rho / d m is -omega r / m in the place of -omega."""
    mine, theirs = (
        gradient(loss(beta=1e-7), from_errors((0.2, error), (0.2, 0.2)), "rejected")
        for loss in (ProfileDPO, DiffusionDPO)
    )
    assert float(mine / theirs) == pytest.approx(factor, rel=1e-3)


def test_rewards_are_reported_as_for_the_other_objectives():
    terms = from_errors((0.1, 0.4), (0.2, 0.2))
    assert ProfileDPO()(terms)[1]["reward_chosen"] == DiffusionDPO(beta=1.0)(terms)[1]["reward_chosen"]
    expected = -math.log(1 / (1 + math.exp(-500 * 0.2 * (math.log(2.0) + math.log(2.0)))))
    torch.testing.assert_close(ProfileDPO()(terms)[0], f64(expected))
