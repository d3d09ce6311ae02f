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


@pytest.mark.parametrize("cls", [CappedDPO, CappedSIPO])
def test_a_negative_cap_is_refused(cls):
    with pytest.raises(ValueError, match=r"cap is -0\.1"):
        cls(cap=-0.1)
