from dataclasses import replace

import pytest
import torch
from support.core import f64
from support.terms import random_terms

from sipo import Branch, DiffusionDPO, PairTerms
from sipo.losses import SafeguardedDPO
from sipo.losses.safeguard import safeguard


def shared(mu: float, e_w, e_l):
    """Both members' predictions move by one shared output vector, as a network's do to first order: its gradient."""
    loss = DiffusionDPO(beta=1e-6) if mu is None else SafeguardedDPO(beta=1e-6, mu=mu)
    shift = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    terms = PairTerms(
        Branch(zero, f64(*e_w)[None] + shift, f64(*e_w)[None]), Branch(zero, f64(*e_l)[None] + shift, f64(*e_l)[None]),
        torch.tensor([500]), f64(0.05),
    )  # fmt: skip
    (grad,) = torch.autograd.grad(loss(terms)[0].sum(), shift)
    return -grad[0]


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_a_step_lowers_the_chosen_error_by_at_least_mu_of_its_own_rate(mu):
    """The rejected error is larger and points the same way: without the safeguard the chosen error would rise."""
    e_w, e_l = (0.3, 0.1), (0.9, 0.2)
    downhill = -f64(*e_w)
    own = float(downhill @ downhill)

    def rate(direction):
        """How fast the chosen error falls, as a share of a step on the chosen alone; 1e-6 H / 2 / 2 is the step's scale."""
        return float(downhill @ direction) / (own * 1e-3 / 2 / 2)

    assert rate(shared(None, e_w, e_l)) < 0
    assert rate(shared(mu, e_w, e_l)) == pytest.approx(mu, abs=2e-3)


def test_opposed_errors_are_left_alone():
    zero = torch.zeros(1, 2, dtype=torch.float64)
    terms = PairTerms(
        Branch(zero, f64(1, 0)[None], zero), Branch(zero, f64(-1, 0.5)[None], zero), torch.tensor([500]), f64(0.05)
    )
    assert safeguard(terms, 0.9) == 1


def test_the_value_is_that_of_diffusion_dpo():
    terms = random_terms(6)
    torch.testing.assert_close(SafeguardedDPO(beta=2.0, mu=0.5)(terms)[0], DiffusionDPO(beta=2.0)(terms)[0])
    assert ((SafeguardedDPO(mu=0.5)(terms)[1]["rejected_share"] - 0.5).abs() <= 0.5).all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="mu is 1"):
        SafeguardedDPO(mu=1)
    with pytest.raises(ValueError, match="rejected member"):
        SafeguardedDPO()(replace(random_terms(2), rejected=None))
