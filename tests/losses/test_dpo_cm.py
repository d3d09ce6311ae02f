import math

import pytest
import torch
from support.core import f64
from support.terms import from_errors, random_terms
from torch.nn.functional import logsigmoid

from sipo import DPOCM, DiffusionDPO

LOG_W = (math.log(0.95), math.log(0.80))


def golden_terms():
    return from_errors(policy=(0.210, 0.300), reference=(0.212, 0.299), log_iw=LOG_W)


def test_golden_weight():
    """w^w .95, w^l .80, e .1: the pair's weight is clip(.80) = .9, and at tau = .9 the pair is pruned."""
    dpo = DiffusionDPO(beta=1.0)(golden_terms())[0]
    kept, metrics = DPOCM(beta=1.0, prune_threshold=0.0)(golden_terms())
    torch.testing.assert_close(kept, 0.9 * dpo)
    torch.testing.assert_close(metrics["weight"], f64(0.9))
    assert metrics["clipped"] == 1
    assert metrics["pruned"] == 0
    pruned, metrics = DPOCM(beta=1.0)(golden_terms())
    assert pruned == 0
    assert metrics["pruned"] == 1


def test_the_scale_acts_before_clip_and_threshold():
    """.95^2 = .9025 and .8^2 = .64: with log_iw_scale = 1/2, .8^.5 = .894 is clipped to .9 and kept from .89 on."""
    loss, metrics = DPOCM(log_iw_scale=0.5, clip_range=0.3, prune_threshold=0.89)(golden_terms())
    torch.testing.assert_close(metrics["weight"], f64(math.sqrt(0.8)))
    assert (loss > 0).all()
    assert metrics["clipped"] == 0
    assert DPOCM(log_iw_scale=2.0, prune_threshold=0.65)(golden_terms())[1]["pruned"] == 1
    assert DPOCM(log_iw_scale=2.0, prune_threshold=0.63)(golden_terms())[1]["pruned"] == 0


def test_a_weight_at_the_threshold_is_kept():
    terms = from_errors((0.2, 0.3), (0.2, 0.3), log_iw=(math.log(0.9), 0.0))
    assert DPOCM(prune_threshold=0.9)(terms)[1]["pruned"] == 0


def test_without_clip_range_and_threshold_it_is_diffusion_dpo():
    terms = random_terms(6)
    for omega in ("constant", "transition"):
        expected = DiffusionDPO(beta=2.0, omega=omega, horizon=50)(terms)[0]
        found = DPOCM(beta=2.0, clip_range=0.0, prune_threshold=0.0, omega=omega, horizon=50)(terms)[0]
        assert torch.equal(found, expected)


def test_the_weight_carries_no_gradient():
    log_iw = tuple(0.02 * w for w in (f64(1, -2), f64(-1, 1)))
    for w in log_iw:
        w.requires_grad_()
    terms = random_terms(2, log_iw=log_iw)
    terms.chosen.policy.requires_grad_()
    loss, _ = DPOCM(prune_threshold=0.0)(terms)
    loss.sum().backward()
    assert [w.grad for w in log_iw] == [None, None]
    assert terms.chosen.policy.grad.abs().sum() > 0


def test_the_gradient_is_the_weight_times_diffusion_dpos():
    gradients = []
    for objective in (DPOCM(prune_threshold=0.0), DiffusionDPO(beta=1.0)):
        terms = random_terms(3)
        policy = terms.chosen.policy.requires_grad_()
        loss, metrics = objective(terms)
        gradients.append(
            torch.autograd.grad(loss.sum(), policy)[0] / metrics.get("weight", torch.ones(3)).reshape(3, 1, 1, 1)
        )
    torch.testing.assert_close(*gradients)


def test_the_gradient_is_exact():
    base = random_terms(3)

    def loss(policy_w, policy_l):
        terms = random_terms(
            3,
            chosen=(base.chosen.target, policy_w, base.chosen.reference),
            rejected=(base.rejected.target, policy_l, base.rejected.reference),
        )
        return DPOCM(beta=0.01, prune_threshold=0.0)(terms)[0]

    policies = base.chosen.policy.clone().requires_grad_(), base.rejected.policy.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, policies)


def test_pruned_pairs_count_as_zeros_of_the_batch():
    """A pair is zeroed, the others keep their losses: pruning never raises the learning rate of what is left."""
    log_iw = (f64(0.0, -0.5, 0.0), f64(0.0, 0.0, -0.02))
    terms = random_terms(3, log_iw=log_iw)
    loss, metrics = DPOCM()(terms)
    dpo, rewards = DiffusionDPO(beta=1.0)(terms)
    assert metrics["pruned"].tolist() == [0, 1, 0]
    torch.testing.assert_close(loss, dpo * f64(1, 0, math.exp(-0.02)))
    torch.testing.assert_close(metrics["reward_gap"], rewards["reward_gap"])
    torch.testing.assert_close(loss, -metrics["weight"] * (1 - metrics["pruned"]) * logsigmoid(rewards["reward_gap"]))


@pytest.mark.parametrize(
    "fields",
    [
        {"clip_range": 1.0},
        {"clip_range": -0.1},
        {"prune_threshold": -0.1},
        {"log_iw_scale": 0.0},
        {"beta": 0.0},
        {"omega": "x"},
    ],
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        DPOCM(**fields)


def test_missing_weights_are_named():
    with pytest.raises(ValueError, match="importance weights"):
        DPOCM()(random_terms(2, without="log_iw"))
