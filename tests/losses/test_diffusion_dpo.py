import math

import pytest
import torch
from support.core import f64, normal
from support.terms import from_errors, random_terms, swapped

from sipo import DiffusionDPO, beta_equivalents, resolve_horizon


def test_golden_of_the_reference_implementation():
    """SalesforceAIResearch/DiffusionDPO: inside = -0.5 beta_dpo ((L_w - L_l) - (R_w - R_l)) = 7.5."""
    terms = from_errors(policy=(0.210, 0.300), reference=(0.212, 0.299))
    loss, metrics = DiffusionDPO(beta=5.0)(terms)
    torch.testing.assert_close(metrics["reward_gap"], f64(7.5))
    torch.testing.assert_close(metrics["reward_chosen"], f64(5.0))
    torch.testing.assert_close(metrics["reward_rejected"], f64(-2.5))
    torch.testing.assert_close(loss, f64(5.5293e-4), rtol=0, atol=5.1e-9)
    torch.testing.assert_close(metrics["sigmoid_neg_logit"], 1 - (-loss).exp())


def test_the_loss_is_that_of_both_public_scripts():
    terms = random_terms(6)
    L_w, L_l, R_w, R_l = (
        ((prediction - branch.target) ** 2).mean(dim=[1, 2, 3])
        for prediction, branch in (
            (terms.chosen.policy, terms.chosen),
            (terms.rejected.policy, terms.rejected),
            (terms.chosen.reference, terms.chosen),
            (terms.rejected.reference, terms.rejected),
        )
    )
    loss = DiffusionDPO(beta=2.0)(terms)[0]
    salesforce = -torch.nn.functional.logsigmoid(-0.5 * 2000 * ((L_w - L_l) - (R_w - R_l)))
    diffusers = -torch.nn.functional.logsigmoid(1000 * ((R_w - R_l) - (L_w - L_l)))
    torch.testing.assert_close(loss, salesforce)
    torch.testing.assert_close(loss, diffusers)


def test_at_the_reference_the_loss_is_log_2():
    terms = random_terms(4, policy_is_reference=True)
    for loss in (DiffusionDPO(), DiffusionDPO(omega="transition", horizon=50)):
        value, metrics = loss(terms)
        torch.testing.assert_close(value, torch.full((4,), math.log(2), dtype=torch.float64))
        assert metrics["tie"].tolist() == [1.0] * 4
        assert metrics["accuracy"].tolist() == [0.0] * 4


def test_swapping_the_members_flips_the_margin():
    terms = random_terms(5)
    metrics, mirrored = DiffusionDPO()(terms)[1], DiffusionDPO()(swapped(terms))[1]
    torch.testing.assert_close(metrics["reward_gap"], -mirrored["reward_gap"])
    torch.testing.assert_close(metrics["accuracy"], 1 - mirrored["accuracy"])


def test_omega_transition_is_the_step_coefficient():
    terms = random_terms(4)
    found = DiffusionDPO(beta=0.3, omega="transition", horizon=50)(terms)[1]["reward_chosen"]
    torch.testing.assert_close(found, 0.3 * 50 * terms.step_coefficient * terms.chosen.gain)


def test_the_gradient_is_exact():
    terms, target, reference = random_terms(3), normal(3, 2, 2, 2, seed=7), normal(3, 2, 2, 2, seed=8)

    def loss(policy_w, policy_l):
        rebuilt = random_terms(3, chosen=(target, policy_w, reference), rejected=(target, policy_l, reference))
        return DiffusionDPO(beta=0.01)(rebuilt)[0]

    policies = terms.chosen.policy.clone().requires_grad_(), terms.rejected.policy.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, policies)


@pytest.mark.parametrize(
    ("loss", "horizon"),
    [(DiffusionDPO(), 1000), (DiffusionDPO(omega="transition"), 50), (DiffusionDPO(omega="transition", horizon=7), 7)],
)
def test_resolve_horizon(loss, horizon):
    assert resolve_horizon(loss, 50).horizon == horizon


def test_an_unresolved_transition_horizon_is_an_error():
    with pytest.raises(ValueError, match="resolve_horizon"):
        DiffusionDPO(omega="transition")(random_terms(2))


def test_beta_units():
    assert beta_equivalents(DiffusionDPO(5.0)) == {"paper": 5.0, "salesforce": 5000.0, "diffusers": 2500.0}
    assert beta_equivalents(DiffusionDPO(0.02)) == {"paper": 0.02, "salesforce": 20.0, "diffusers": 10.0}
    assert beta_equivalents(DiffusionDPO(1.0, omega="transition", horizon=50)) == {}


@pytest.mark.parametrize("fields", [{"beta": 0.0}, {"beta": -1.0}, {"omega": "linear"}, {"horizon": 0}])
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        DiffusionDPO(**fields)


def test_missing_parts_are_named():
    with pytest.raises(ValueError, match="rejected"):
        DiffusionDPO()(random_terms(2, without="rejected"))
    with pytest.raises(ValueError, match="reference"):
        DiffusionDPO()(random_terms(2, without="reference"))
    with pytest.raises(ValueError, match="adds noise"):
        DiffusionDPO(omega="transition", horizon=50)(random_terms(2, without="step_coefficient"))
