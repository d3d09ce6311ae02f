"""SPIN-Diffusion (Yuan et al. 2024): its loss on a pair (data, previous iterate's sample) is Diffusion-DPO's, with that iterate as reference.

The transcription is of the paper's objective in the means of the reverse process: with l(u) = log(1 + exp(-u)),

    l(-lambda_t [|x_{t-1} - mu_theta(x_t)|^2 - |x_{t-1} - mu_k(x_t)|^2 - |x'_{t-1} - mu_theta(x'_t)|^2 + |x'_{t-1} - mu_k(x'_t)|^2])

where mu(x_t) = (x_t - beta_t / sqrt(1 - abar_t) eps(x_t)) / sqrt(1 - beta_t) is DDPM's mean, and x_{t-1} that of its posterior.
"""

import numpy as np
import pytest
import torch
from support.core import normal, stable_diffusion

from sipo import DDIM, DiffusionDPO, ImportanceWeight, pair_terms

BETA, T = 2.0, 1000


def ddpm_mean(eps, x, abar, before):
    beta = 1 - abar / before
    return (x - beta / np.sqrt(1 - abar) * eps) / np.sqrt(1 - beta)


def posterior_mean(x0, x, abar, before):
    beta = 1 - abar / before
    return np.sqrt(before) * beta / (1 - abar) * x0 + np.sqrt(1 - beta) * (1 - before) / (1 - abar) * x


def spin(data, sample, noise, abar, before, policy, previous) -> float:
    """The loss of one pair; lambda_t = beta T / (2 sigma_t^2 d), with sigma_t^2 that of the posterior, d dimensions."""
    variance = (1 - before) / (1 - abar) * (1 - abar / before)
    terms = []
    for x0 in (data, sample):
        x = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
        target = posterior_mean(x0, x, abar, before)
        terms += [np.mean((target - ddpm_mean(eps(x), x, abar, before)) ** 2) for eps in (policy, previous)]
    inside = -BETA * T / (2 * variance) * (terms[0] - terms[1] - terms[2] + terms[3])
    return float(np.logaddexp(0, -inside))


@pytest.mark.parametrize("t", [5, 80, 600])
def test_the_loss_is_that_of_the_paper(t):
    schedule = stable_diffusion()
    data, sample, noise = (normal(1, 3, 4, 4, seed=seed) for seed in range(3))
    terms = pair_terms(
        lambda x, t: torch.tanh(1.02 * x), lambda x, t: torch.tanh(x), schedule, DDIM(), T, ImportanceWeight(),
        data, sample, noise, torch.tensor([t]),
    )  # fmt: skip
    loss, _ = DiffusionDPO(beta=BETA, omega="transition", horizon=T)(terms)
    abar = schedule.alphas_cumprod.double().numpy()
    arrays = (x[0].numpy() for x in (data, sample, noise))
    expected = spin(*arrays, abar[t], abar[t - 1], lambda x: np.tanh(1.02 * x), np.tanh)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert abs(expected - np.log(2)) > 1e-4


def test_at_the_previous_iterate_it_is_log_2():
    schedule, (data, sample, noise) = stable_diffusion(), (normal(1, 3, 4, 4, seed=seed) for seed in range(3))
    abar = schedule.alphas_cumprod.double().numpy()
    arrays = (x[0].numpy() for x in (data, sample, noise))
    assert spin(*arrays, abar[80], abar[79], np.tanh, np.tanh) == pytest.approx(np.log(2))
