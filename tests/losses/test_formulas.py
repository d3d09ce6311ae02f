"""The formulas on log-ratios that no diffusion model made: sequences of tokens, as a language model's DPO has them."""

import pytest
import torch
from support.core import f64, normal
from torch import Tensor

from sipo.losses.formulas import diffusion_dpo, dpo_cm, sipo

BETA = 0.3


def sequences(batch: int = 6, length: int = 9) -> list[Tensor]:
    """Summed log-probabilities (B,): policy and reference on the chosen, policy and reference on the rejected."""
    return [-normal(batch, length, seed=seed).abs().sum(1).requires_grad_(seed in (0, 2)) for seed in range(4)]


def test_dpo_on_sequences_is_the_loss_of_the_dpo_paper():
    """Rafailov et al. 2023, Eq. 7, as eric-mitchell/direct-preference-optimization writes it."""
    policy_w, reference_w, policy_l, reference_l = sequences()
    expected = -torch.nn.functional.logsigmoid(BETA * ((policy_w - policy_l) - (reference_w - reference_l)))
    loss = diffusion_dpo(policy_w - reference_w, policy_l - reference_l, BETA).loss
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_the_gradient_pulls_on_both_members_by_the_probability_of_the_wrong_order():
    policy_w, reference_w, policy_l, reference_l = sequences()
    found = diffusion_dpo(policy_w - reference_w, policy_l - reference_l, BETA)
    grads = torch.autograd.grad(found.loss.sum(), (policy_w, policy_l))
    wrong = 1 / (1 + found.logit.exp())
    torch.testing.assert_close(grads[0], -BETA * wrong, rtol=1e-12, atol=0)
    torch.testing.assert_close(grads[1], BETA * wrong, rtol=1e-12, atol=0)


@pytest.mark.parametrize("formula", [dpo_cm, sipo])
def test_without_clip_range_and_threshold_the_weights_change_nothing(formula):
    policy_w, reference_w, policy_l, reference_l = sequences()
    rho = policy_w - reference_w, policy_l - reference_l
    weights = normal(6, seed=7), normal(6, seed=8)
    assert formula(*rho, *weights, BETA, e=0.0, tau=0.0).loss.equal(diffusion_dpo(*rho, BETA).loss)


def test_by_hand():
    """m = 2, w = (0.5, 0.8): the pair's weight is 0.5; its inverse weights 2 and 1.25 clip to 1.2 both."""
    rho, weights = (f64(1.5), f64(-0.5)), (f64(0.5).log(), f64(0.8).log())
    plain = -torch.sigmoid(f64(2.0)).log()
    cm = dpo_cm(*rho, *weights, 1.0, e=0.2, tau=0.4)
    torch.testing.assert_close(cm.loss, 0.8 * plain)
    scaled = sipo(*rho, *weights, 1.0, e=0.2, tau=0.4)
    torch.testing.assert_close(scaled.loss, -torch.sigmoid(f64(2.4)).log())
    assert (cm.clipped, scaled.clipped) == (1, 1)
    for formula in (dpo_cm, sipo):
        pruned = formula(*rho, *weights, 1.0, e=0.2, tau=0.6)
        assert (pruned.loss, pruned.mask) == (0, 0)


@pytest.mark.parametrize("formula", [dpo_cm, sipo])
def test_a_clip_range_beyond_what_the_threshold_leaves_changes_nothing(formula):
    """log w <= 0, as against the forward posterior: of pairs with w >= tau the weight is at most 1 / tau, its gradient included.

    So at the paper's tau = .9 its sweep over the clip range, from .2 on, is one and the same training.
    """
    tau, log_w = 0.9, torch.linspace(-0.3, 0.0, 61, dtype=torch.float64)
    rho = normal(61, seed=1), normal(61, seed=2)

    def loss_and_gradient(e: float) -> tuple[Tensor, Tensor]:
        log_w_w = log_w.clone().requires_grad_()
        log_w_l = log_w_w * torch.tensor([0.5, 1.5]).repeat(31)[:61]  # either member may be the lesser one
        loss = formula(*(each.requires_grad_() for each in rho), log_w_w, log_w_l, BETA, e, tau).loss
        inputs = [*rho, log_w_w] if formula is sipo else list(rho)  # DPO-C&M detaches its weight
        return loss, torch.cat(torch.autograd.grad(loss.sum(), inputs))

    paper, wider, narrower = (loss_and_gradient(e) for e in (0.12, 0.5, 0.05))
    assert all(one.equal(other) for one, other in zip(paper, wider, strict=True))
    assert not paper[0].equal(narrower[0])
    assert 0 < paper[0].count_nonzero() < 61
