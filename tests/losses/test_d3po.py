"""D3PO against a transcription of yk7333/d3po: its step's log-probability, its ratios, its loss."""

import math

import numpy as np
import pytest
import torch
from support.core import f64, normal, stable_diffusion

from sipo import DDIM
from sipo.losses import D3PO
from sipo.terms import StepTerms, step_terms

STRIDE = 50  # 20 steps


def log_prob_of_step(abar: np.ndarray, t: int, eps, x, after) -> float:
    """`d3po_pytorch/diffusers_patch/ddim_with_logprob.py` with eta = 1: the mean over dimensions, of one sample."""
    a, before = abar[t], abar[max(t - STRIDE, 0)]
    variance = (1 - before) / (1 - a) * (1 - a / before)
    original = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
    mean = np.sqrt(before) * original + np.sqrt(1 - before - variance) * eps
    log_prob = -((after - mean) ** 2) / (2 * variance) - np.log(np.sqrt(variance)) - np.log(np.sqrt(2 * np.pi))
    return float(log_prob.mean())


def d3po_loss(log_prob_0, ref_0, log_prob_1, ref_1, human_prefer, beta, eps) -> float:
    """The last lines of `scripts/train.py`: `human_prefer` is (1, -1) where the first sample is preferred."""
    ratio_0 = min(max(math.exp(log_prob_0 - ref_0), 1 - eps), 1 + eps)
    ratio_1 = min(max(math.exp(log_prob_1 - ref_1), 1 - eps), 1 + eps)
    inside = beta * math.log(ratio_0) * human_prefer[0] + beta * math.log(ratio_1) * human_prefer[1]
    return -math.log(1 / (1 + math.exp(-inside)))


@pytest.mark.parametrize("t", [951, 501, 51, 1])
@pytest.mark.parametrize("scale", [1.0, 1.02, 1.5])
def test_the_loss_of_a_step_is_theirs(t, scale):
    """Which of the two samples is the first does not matter to the loss, only which is preferred."""
    schedule = stable_diffusion()
    abar = schedule.alphas_cumprod.double().numpy()
    states = normal(2, 2, 4, 5, 5, seed=0)  # (samples, x_t and x_s, ...)
    policy, reference = (lambda x, t: scale * torch.tanh(x)), (lambda x, t: torch.tanh(x))
    now, then = torch.tensor([t]), torch.tensor([max(t - STRIDE, 0)])
    terms = step_terms(policy, reference, schedule, DDIM(), states[:1], states[1:], now, then)
    loss, metrics = D3PO(beta=0.1, clip_range=0.1)(terms)

    log_probs = []
    for x, after in states.numpy():
        log_probs += [log_prob_of_step(abar, t, factor * np.tanh(x), x, after) for factor in (scale, 1.0)]
    assert loss.item() == pytest.approx(d3po_loss(*log_probs, (1, -1), 0.1, 0.1), rel=1e-9)
    swapped = [*log_probs[2:], *log_probs[:2]]
    assert loss.item() == pytest.approx(d3po_loss(*swapped, (-1, 1), 0.1, 0.1), rel=1e-9)
    ratios = [log_probs[0] - log_probs[1], log_probs[2] - log_probs[3]]
    assert terms.chosen.item() == pytest.approx(ratios[0], rel=1e-9)
    outside = any(not math.log(0.9) <= ratio <= math.log(1.1) for ratio in ratios)
    assert metrics["clipped"].item() == float(outside)


def test_beyond_the_clip_a_member_has_no_gradient():
    rho = f64(0.05, 0.2, -0.3).requires_grad_()
    loss, _ = D3PO()(StepTerms(rho, torch.zeros_like(rho), torch.tensor([1, 1, 1])))
    (gradient,) = torch.autograd.grad(loss.sum(), rho)
    assert (gradient != 0).tolist() == [True, False, False]


def test_at_the_reference_it_is_log_2_and_a_tie():
    schedule, states = stable_diffusion(), normal(2, 2, 4, 5, 5, seed=0)
    network = lambda x, t: torch.tanh(x)  # noqa: E731
    terms = step_terms(
        network, network, schedule, DDIM(), states[:1], states[1:], torch.tensor([501]), torch.tensor([451])
    )
    loss, metrics = D3PO()(terms)
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["tie"].item() == 1.0


@pytest.mark.parametrize("keys", [{"beta": 0.0}, {"clip_range": 0.0}, {"clip_range": 1.0}])
def test_values_out_of_range(keys):
    with pytest.raises(ValueError, match="must"):
        D3PO(**keys)
