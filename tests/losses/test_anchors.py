"""IPO, DPOP and NCA against their papers' formulas, written again here, and the property that each is chosen for."""

import pytest
import torch
from support.terms import from_errors, gradient, random_terms
from torch.nn.functional import logsigmoid

from sipo import DiffusionDPO
from sipo.losses import DPOP, IPO, NCA

H = 1000


def rewards(terms):
    """rho of both members by hand: half the difference of mean squared errors."""
    for branch in (terms.chosen, terms.rejected):
        errors = [((p - branch.target) ** 2).mean(dim=(1, 2, 3)) for p in (branch.policy, branch.reference)]
        yield 0.5 * (errors[1] - errors[0])


def test_ipo_is_azars_loss_in_units_of_the_temperature():
    """(h - 1 / (2 tau))^2, tau = beta H, times tau^2."""
    terms, tau = random_terms(6), 2.0 * H
    rho_w, rho_l = rewards(terms)
    torch.testing.assert_close(IPO(beta=2.0)(terms)[0], tau**2 * (rho_w - rho_l - 1 / (2 * tau)) ** 2)


@pytest.mark.parametrize(("gap", "sign"), [(0.4, 1), (0.6, -1)])
def test_ipo_pulls_the_margin_back_to_its_target(gap, sign):
    """With beta H = 1000, the margin 1/2 is reached when the errors of the two differ by 0.001."""
    terms = from_errors((0.2, 0.2 + 2 * gap / H), (0.2, 0.2))
    assert (
        gradient(IPO(beta=1.0), terms, "rejected") * sign < 0
    )  # below the target the rejected error is raised, above it is lowered again


def test_dpop_is_its_papers_loss():
    terms = random_terms(6)
    rho_w, rho_l = rewards(terms)
    penalty = torch.maximum(-rho_w, torch.zeros_like(rho_w))  # max(0, log p_ref / p_theta) of the chosen
    assert (penalty > 0).any()
    assert (penalty == 0).any()
    torch.testing.assert_close(DPOP(beta=2.0, anchor=3.0)(terms)[0], -logsigmoid(2000 * (rho_w - rho_l - 3 * penalty)))
    assert DPOP(beta=2.0, anchor=0.0)(terms)[0].equal(DiffusionDPO(beta=2.0)(terms)[0])


def test_dpop_does_not_trade_the_chosen_for_the_rejected():
    """Where both errors have grown, and the rejected one more, Diffusion-DPO is content; DPOP is not."""
    ruined, fine = from_errors((0.25, 0.35), (0.2, 0.2)), from_errors((0.2, 0.2), (0.2, 0.2))
    assert DiffusionDPO(beta=0.1)(ruined)[0] < DiffusionDPO(beta=0.1)(fine)[0]
    assert DPOP(beta=0.1, anchor=5.0)(ruined)[0] > DPOP(beta=0.1, anchor=5.0)(fine)[0]


def test_nca_is_the_pairwise_loss_of_trl():
    """trl's DPOTrainer, loss_type nca_pair."""
    terms = random_terms(6)
    r_w, r_l = (2000 * rho for rho in rewards(terms))
    expected = -logsigmoid(r_w) - 0.5 * logsigmoid(-r_w) - 0.5 * logsigmoid(-r_l)
    torch.testing.assert_close(NCA(beta=2.0)(terms)[0], expected)


def test_nca_has_a_finite_best_reward_of_the_chosen():
    """-log sigmoid(r) - log sigmoid(-r) / 2 is least where sigmoid(r) = 2/3, that is r = log 2."""
    best = torch.tensor(2.0, dtype=torch.float64).log()
    terms = from_errors((0.2 - 2 * float(best) / H, 0.2), (0.2, 0.2))
    assert abs(gradient(NCA(beta=1.0), terms, "chosen")) < 1e-9


def test_a_negative_anchor_is_refused():
    with pytest.raises(ValueError, match="anchor is -1"):
        DPOP(anchor=-1)
