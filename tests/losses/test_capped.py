import pytest
import torch
from support.core import f64
from support.terms import from_errors, gradient, random_terms

from sipo import SIPO, DiffusionDPO
from sipo.losses import CappedDPO, CappedSIPO


def gradients(loss, policy: tuple[float, float]) -> tuple[float, float]:
    """d loss / d prediction of the chosen and of the rejected member, from reference errors of 0.2."""
    return tuple(float(gradient(loss, from_errors(policy, (0.2, 0.2)), member)) for member in ("chosen", "rejected"))


def test_the_rejected_member_has_no_gradient_beyond_the_cap_and_the_chosen_one_always_has():
    loss = CappedDPO(beta=0.1, cap=0.1)
    for rejected in (0.18, 0.2, 0.219):
        chosen_pull, rejected_push = gradients(loss, (0.2, rejected))
        assert chosen_pull > 0 > rejected_push
    for rejected in (0.2201, 0.3, 5.0):
        chosen_pull, rejected_push = gradients(loss, (0.2, rejected))
        assert chosen_pull > 0
        assert rejected_push == 0
    assert gradients(loss, (0.2, 0.3))[0] == gradients(loss, (0.2, 5.0))[0]  # how far beyond does not matter


def test_the_chosen_member_has_no_gradient_beyond_its_own_cap_and_full_pull_before_it():
    loss = CappedDPO(beta=0.1, cap=0.1, gain_cap=0.05)
    for chosen in (0.25, 0.2, 0.1901):
        assert gradients(loss, (chosen, 0.2))[0] == gradients(CappedDPO(beta=0.1, cap=0.1), (chosen, 0.2))[0] > 0
    for chosen in (0.1899, 0.1, 1e-3):
        chosen_pull, rejected_push = gradients(loss, (chosen, 0.2))
        assert chosen_pull == 0 > rejected_push
    assert gradients(loss, (0.1899, 0.2201)) == (0, 0)  # a pair in which both have come far enough


@pytest.mark.parametrize("beta", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("cls", [CappedDPO, CappedSIPO])
def test_with_both_caps_the_minimisers_are_the_same_at_every_beta(cls, beta):
    """The loss has a least value, `softplus(-beta H (gain_cap r_w + cap r_l) / 2)`, and takes it beyond both caps alone."""
    loss, unweighted = cls(beta=beta, cap=0.1, gain_cap=0.05), 500 * beta * (0.05 * 0.2 + 0.1 * 0.2)
    least = torch.nn.functional.softplus(f64(-unweighted))
    for errors, at_the_least in [
        ((0.18, 0.23), True),
        ((0.1, 5.0), True),
        ((0.195, 0.23), False),
        ((0.18, 0.21), False),
    ]:
        value = loss(from_errors(errors, (0.2, 0.2), (0.0, 0.0)))[0]
        assert (value > least + 1e-9) != at_the_least
        assert value >= least - 1e-9


def test_the_metrics_name_both_caps():
    _, metrics = CappedDPO(beta=0.1, gain_cap=0.05)(from_errors((0.18, 0.3), (0.2, 0.2)))
    assert (metrics["capped"], metrics["gain_capped"]) == (1, 1)
    _, metrics = CappedDPO(beta=0.1, gain_cap=0.05)(from_errors((0.195, 0.21), (0.2, 0.2)))
    assert (metrics["capped"], metrics["gain_capped"]) == (0, 0)
    assert "gain_capped" not in CappedDPO(beta=0.1)(from_errors((0.1, 0.2), (0.2, 0.2)))[1]


def test_diffusion_dpo_pushes_on_without_end():
    assert gradients(DiffusionDPO(beta=0.1), (0.2, 0.3))[1] < 0


def test_inside_the_trust_region_it_is_diffusion_dpo():
    terms = random_terms(8)  # errors change by a few per cent
    for loss, plain in [
        (CappedDPO(beta=2.0, cap=10.0), DiffusionDPO(beta=2.0)),
        (
            CappedDPO(beta=0.2, cap=10.0, omega="transition", horizon=50),
            DiffusionDPO(beta=0.2, omega="transition", horizon=50),
        ),
        (CappedSIPO(beta=2.0, cap=10.0), SIPO(beta=2.0)),
    ]:
        assert loss(terms)[0].equal(plain(terms)[0])
        assert not loss(terms)[1]["capped"].any()


def test_the_formula():
    """r_l = 0.2, m_l = 0.3, cap 0.1: the rejected counts as 0.02 of change, the chosen as its own 0.05."""
    loss, metrics = CappedDPO(beta=0.05, cap=0.1)(from_errors((0.15, 0.3), (0.2, 0.2)))
    torch.testing.assert_close(loss, -torch.sigmoid(f64(25 * (0.05 + 0.02))).log())
    assert metrics["capped"] == 1
    torch.testing.assert_close(metrics["reward_rejected"], f64(25 * -0.1))  # as it is, not as it counts


def test_the_capped_sipo_applies_its_weights_to_the_capped_margin():
    """w = (0.95, 0.92), e = 0.1: wi = 1 / 0.92."""
    log_iw = (f64(0.95).log().item(), f64(0.92).log().item())
    loss, _ = CappedSIPO(beta=0.05, cap=0.1)(from_errors((0.15, 0.3), (0.2, 0.2), log_iw))
    torch.testing.assert_close(loss, -torch.sigmoid(f64(25 * 0.07 / 0.92)).log())
    assert CappedSIPO(beta=0.05, cap=0.1, prune_threshold=0.93)(from_errors((0.15, 0.3), (0.2, 0.2), log_iw))[0] == 0


@pytest.mark.parametrize("name", ["cap", "gain_cap"])
@pytest.mark.parametrize("cls", [CappedDPO, CappedSIPO])
def test_a_negative_cap_is_refused(cls, name):
    with pytest.raises(ValueError, match=rf"{name} is -0\.1"):
        cls(**{name: -0.1})
