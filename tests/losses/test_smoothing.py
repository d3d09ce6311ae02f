"""Label smoothing against closed forms: conservative DPO per pair, and its symmetries for every pairwise objective."""

import math

import pytest
import torch
from support.terms import from_errors, random_terms
from torch.nn.functional import logsigmoid

from sipo.losses import D3PO, IPO, LOSSES, SFT, DiffusionDPO
from sipo.losses.smoothing import doubt_of, smoothed
from sipo.terms import StepTerms

PAIRWISE = [name for name, cls in LOSSES.items() if cls.needs_rejected and name != "d3po"]


def test_conservative_dpo_with_a_doubt_for_each_pair():
    """Mitchell 2023, Eq. 3, with its own p for each pair."""
    terms, p = random_terms(5), torch.tensor([0.0, 0.1, 0.25, 0.4, 0.5], dtype=torch.float64)
    logit = 3.0 * 1000 / 2 * (terms.chosen.gain - terms.rejected.gain)
    expected = -(1 - p) * logsigmoid(logit) - p * logsigmoid(-logit)
    losses, metrics = smoothed(DiffusionDPO(beta=3.0), terms, p)
    assert torch.allclose(losses, expected, rtol=1e-12)
    assert torch.equal(metrics["reward_gap"], DiffusionDPO(beta=3.0)(terms)[1]["reward_gap"])


def test_its_optimum_is_finite():
    """The margin at which the slope is zero: beta H m = log((1 - p) / p)."""
    p, beta = 0.2, 1.0
    margin = math.log((1 - p) / p) / (beta * 1000)
    gain = torch.tensor(2 * margin, dtype=torch.float64)
    terms = from_errors((1.0 - gain.item(), 1.0), (1.0, 1.0))
    terms.chosen.policy.requires_grad_()
    losses, _ = smoothed(DiffusionDPO(beta=beta), terms, torch.tensor([p], dtype=torch.float64))
    (slope,) = torch.autograd.grad(losses.sum(), terms.chosen.policy)
    plain, _ = DiffusionDPO(beta=beta)(terms)
    (steep,) = torch.autograd.grad(plain.sum(), terms.chosen.policy)
    assert abs(slope.item()) < 1e-9 * abs(steep.item())


def test_d3po_on_every_step_of_a_trajectory():
    """Conservative DPO where D3PO has its log-ratios of steps: clip(exp(rho)) in the place of the errors' difference."""
    draw = torch.Generator().manual_seed(0)
    rho_w, rho_l = (0.2 * torch.randn(6, generator=draw, dtype=torch.float64) for _ in range(2))
    p = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.5, 1.0], dtype=torch.float64)
    logit = 2.0 * (rho_w.exp().clamp(0.9, 1.1).log() - rho_l.exp().clamp(0.9, 1.1).log())
    expected = -(1 - p) * logsigmoid(logit) - p * logsigmoid(-logit)
    terms = StepTerms(rho_w, rho_l, torch.ones(6))
    losses, metrics = smoothed(D3PO(beta=2.0), terms, p)
    assert torch.allclose(losses, expected, rtol=1e-12)
    assert torch.equal(metrics["reward_gap"], D3PO(beta=2.0)(terms)[1]["reward_gap"])


def test_ipo():
    terms, p = random_terms(4), torch.full((4,), 0.3, dtype=torch.float64)
    logit = 1000 / 2 * (terms.chosen.gain - terms.rejected.gain)
    expected = 0.7 * (logit - 0.5) ** 2 + 0.3 * (-logit - 0.5) ** 2
    assert torch.allclose(smoothed(IPO(), terms, p)[0], expected)


@pytest.mark.parametrize("name", PAIRWISE)
def test_every_pairwise_objective(name):
    """No doubt is the objective, to the last bit; full doubt is the other preference; half is indifferent to the label."""
    objective, terms = LOSSES[name](), random_terms(4)
    zero, one, half = (torch.full((4,), p, dtype=torch.float64) for p in (0.0, 1.0, 0.5))
    plain, _ = objective(terms)
    assert torch.equal(smoothed(objective, terms, None)[0], plain)
    assert torch.allclose(smoothed(objective, terms, zero)[0], plain)
    other = type(terms)(terms.rejected, terms.chosen, terms.t, terms.step_coefficient)
    assert torch.allclose(smoothed(objective, terms, one)[0], objective(other)[0])
    assert torch.allclose(smoothed(objective, terms, half)[0], smoothed(objective, other, half)[0])


def test_doubts():
    strength = torch.tensor([1.0, 0.75, 0.5])
    assert doubt_of(0.0, strength) is None
    assert torch.equal(doubt_of(0.1, strength), torch.full((3,), 0.1))
    assert torch.equal(doubt_of("strength", strength), torch.tensor([0.0, 0.25, 0.5]))


def test_an_objective_without_pairs_has_no_labels():
    terms = random_terms(2)
    with pytest.raises(ValueError, match="rejected"):
        smoothed(SFT(), type(terms)(terms.chosen, None, terms.t), torch.tensor([0.1, 0.1]))
