"""Two modes with a known score, pairs that prefer one of them: does training move what the sampler draws?"""

import pytest
import torch
from support.core import stable_diffusion
from torch import nn

from sipo import (
    DDIM,
    DPOCM,
    SFT,
    SIPO,
    DiffusionDPO,
    FlowSchedule,
    ImportanceWeight,
    LogitNormal,
    Uniform,
    draw_timesteps,
    pair_terms,
    predict_x0_eps,
    previous_timestep,
    transition,
)
from sipo.rng import pair_randn

MODES = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
SPREAD = 0.4
BATCH, STEPS, K = 128, 100, 25


def exact_prediction(schedule):
    """The network that knows: x_t is a mixture of N(alpha m, alpha^2 SPREAD^2 + sigma^2), eps = -sigma score."""

    def predict(xt, t):
        alpha, sigma = (c.float()[:, None] for c in schedule.alpha_sigma(t))
        offset = xt[:, None] - alpha[:, None] * MODES  # (B, 2 modes, 2)
        variance = alpha**2 * SPREAD**2 + sigma**2
        share = torch.softmax(-(offset**2).sum(-1) / (2 * variance), 1)  # (B, 2 modes)
        eps = sigma * (share[..., None] * offset).sum(1) / variance
        return eps if schedule.prediction == "epsilon" else eps - (xt - sigma * eps) / alpha.clamp(min=1e-3)

    return predict


class Residual(nn.Module):
    """The exact prediction plus a small network that starts at zero."""

    def __init__(self, exact):
        super().__init__()
        self.exact = exact
        self.net = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 2))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, xt, t):
        return self.exact(xt, t) + self.net(torch.cat([xt, t[:, None].float() / 1000], 1))


def share_right_and_far(predict, schedule, n=500):
    """DDIM(1) sampling with the library's own kernel: share of samples at x > 0, share far from both modes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=generator)
    t = torch.full((n,), 999) if schedule.prediction == "epsilon" else torch.full((n,), 999.0)
    with torch.no_grad():
        for _ in range(K):
            s = previous_timestep(schedule, t, K)
            if torch.equal(s, t):
                break
            x = transition(DDIM(), schedule, *predict_x0_eps(schedule, predict(x, t), x, t), t, s).sample(generator)
            t = s
        x, _ = predict_x0_eps(schedule, predict(x, t), x, t)
    distance = (x[:, None] - MODES).norm(dim=-1).amin(1)
    return (x[:, 0] > 0).float().mean().item(), (distance > 4 * SPREAD).float().mean().item()


def align(objective, schedule, timesteps):
    """Plain Adam on pairs (right mode chosen, left mode rejected), as a trainer would write it."""
    torch.manual_seed(0)
    exact = exact_prediction(schedule)
    policy = Residual(exact)
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    slots = torch.arange(BATCH)
    for step in range(STEPS):
        eps, z, left, right = (pair_randn((2,), 0, step, slots, name) for name in ("eps", "z", "left", "right"))
        t = draw_timesteps(timesteps, schedule, K, 0, step, slots, BATCH)
        terms = pair_terms(
            policy, exact, schedule, DDIM(), K, ImportanceWeight(),
            MODES[1] + SPREAD * right, MODES[0] + SPREAD * left, eps, t, z, objective.needs_importance_weights,
        )  # fmt: skip
        optimizer.zero_grad()
        objective(terms)[0].mean().backward()
        optimizer.step()
    return policy


def test_the_exact_network_draws_both_modes_alike():
    for schedule in (stable_diffusion(), FlowSchedule()):
        right, far = share_right_and_far(exact_prediction(schedule), schedule)
        assert abs(right - 0.5) < 0.06
        assert far < 0.02


@pytest.mark.parametrize(
    "objective",
    [SFT(), DiffusionDPO(beta=0.02), DPOCM(beta=0.02, prune_threshold=0.5), SIPO(beta=0.02, prune_threshold=0.5)],
    ids=lambda objective: type(objective).__name__,
)
def test_alignment_moves_mass_to_the_preferred_mode(objective):
    schedule = stable_diffusion()
    right, far = share_right_and_far(align(objective, schedule, Uniform(stratified=True)), schedule)
    assert right > 0.65
    assert far < 0.1


def test_alignment_on_a_flow_path():
    schedule = FlowSchedule()
    objective = SIPO(beta=0.002, prune_threshold=0.5)  # a velocity error counts for more than that of eps
    right, far = share_right_and_far(align(objective, schedule, LogitNormal()), schedule)
    assert right > 0.65
    assert far < 0.1
