"""The densities of a step and the importance weight between two: torch's distributions, KL, gradients, limits."""

import math

import pytest
import torch
from support.core import cogvideox, f64, normal, scaled_linear, stable_diffusion

from sipo import (
    DDIM,
    FlowSchedule,
    FlowSDE,
    Gaussian,
    VPSchedule,
    add_noise,
    log_importance_weight,
    predict_x0_eps,
    previous_timestep,
    step_coefficient,
    transition,
)


def test_log_prob_is_torchs():
    mean, std, x = normal(3, 2, 5), normal(3, 2, 5, seed=1).exp(), normal(3, 2, 5, seed=2)
    expected = torch.distributions.Normal(mean, std).log_prob(x).sum((1, 2))
    torch.testing.assert_close(Gaussian(mean, std).log_prob(x), expected)
    expected = torch.distributions.Normal(mean, std[:, :1, :1]).log_prob(x).sum((1, 2))
    torch.testing.assert_close(Gaussian(mean, std[:, 0, 0]).log_prob(x), expected)  # std (B,)


def test_sample_is_reproducible_and_scaled():
    g = Gaussian(torch.full((2, 50_000), 3.0), torch.tensor([0.5, 2.0]))
    x = g.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.std(1), torch.tensor([0.5, 2.0]), rtol=0.02, atol=0)
    torch.testing.assert_close(x.mean(1), torch.tensor([3.0, 3.0]), rtol=0.01, atol=0)
    assert torch.equal(x, g.sample(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("equal_std", [True, False])
def test_the_weight_is_the_mean_difference_of_log_densities(equal_std):
    std = normal(3, 1, 1, seed=3).exp()
    p, q = Gaussian(normal(3, 4, 5), std), Gaussian(normal(3, 4, 5, seed=1), std if equal_std else std * 1.3)
    x = q.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_importance_weight(p, q, x), (p.log_prob(x) - q.log_prob(x)) / 20)


@pytest.mark.parametrize("equal_std", [True, False])
def test_the_expected_weight_is_the_mean_of_sampled_ones(equal_std):
    std = f64(0.5).reshape(1, 1)
    p, q, under = (Gaussian(normal(1, 6, seed=i), std) for i in range(3))
    if not equal_std:
        q, under = Gaussian(q.mean, 1.5 * std), Gaussian(under.mean, 0.7 * std)
    n = 200_000
    for u in (q, under):
        x = u.mean + u.std * normal(n, 6, seed=9)
        sampled = log_importance_weight(Gaussian(p.mean.expand(n, 6), p.std), Gaussian(q.mean.expand(n, 6), q.std), x)
        expected = log_importance_weight(p, q, under=u)
        assert abs(sampled.mean() - expected.item()) < 4 * sampled.std() / math.sqrt(n)
    torch.testing.assert_close(log_importance_weight(p, q), log_importance_weight(p, q, under=q))


def test_against_the_posterior_the_expected_weight_is_the_kl():
    p, q = Gaussian(normal(2, 7), f64(0.4, 2.0)), Gaussian(normal(2, 7, seed=1), f64(0.9, 1.0))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.std[:, None]), torch.distributions.Normal(p.mean, p.std[:, None])
    )
    torch.testing.assert_close(log_importance_weight(p, q), -kl.mean(1))


def test_gradients_of_the_weight():
    mean_q, std = normal(2, 3, seed=1), f64(0.3, 1.2)
    x = mean_q + 0.1
    mean_p = normal(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: log_importance_weight(Gaussian(m, std), Gaussian(mean_q, std), x), mean_p)
    assert torch.autograd.gradcheck(lambda m: log_importance_weight(Gaussian(m, std), Gaussian(mean_q, std)), mean_p)
    assert torch.autograd.gradcheck(
        lambda m: log_importance_weight(Gaussian(m, std), Gaussian(mean_q, std), under=Gaussian(x, 2 * std)), mean_p
    )


@pytest.mark.parametrize(
    ("schedule", "kernel", "t"),
    [
        (stable_diffusion(), DDIM(), [0, 500]),
        (FlowSchedule(), DDIM(), [20.0, 500.0]),
        (FlowSchedule(), FlowSDE(), [20.0, 500.0]),
    ],
)
@pytest.mark.parametrize("sampled", [True, False])
def test_an_empty_step_weighs_nothing(schedule, kernel, t, sampled):
    t = torch.tensor(t)
    s = previous_timestep(schedule, t, 50)
    assert s[0] == t[0]
    x0, eps = normal(2, 4), normal(2, 4, seed=1)
    pred = normal(2, 4, seed=2).requires_grad_()
    q = transition(kernel, schedule, x0, eps, t, s)
    p = transition(kernel, schedule, *predict_x0_eps(schedule, pred, add_noise(schedule, x0, eps, t), t), t, s)
    log_iw = log_importance_weight(p, q, q.mean + q.std * normal(2, 4, seed=3) if sampled else None)
    (grad,) = torch.autograd.grad(log_iw.sum(), pred)
    assert log_iw[0] == 0
    assert (grad[0] == 0).all()
    assert log_iw[1] != 0
    assert grad.isfinite().all()
    assert step_coefficient(kernel, schedule, t, s)[0] == 0


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_a_step_from_zero_terminal_snr_is_finite(prediction):
    schedule, t = VPSchedule(cogvideox(3), prediction), torch.tensor([999])
    s = previous_timestep(schedule, t, 50)
    pred = normal(1, 6).requires_grad_()
    p = transition(DDIM(), schedule, *predict_x0_eps(schedule, pred, normal(1, 6, seed=1), t), t, s)
    q = transition(DDIM(), schedule, normal(1, 6, seed=2), normal(1, 6, seed=1), t, s)
    (grad,) = torch.autograd.grad(log_importance_weight(p, q).sum(), pred)
    assert grad.isfinite().all()
    assert (grad != 0).any()
    assert step_coefficient(DDIM(), schedule, t, s).isfinite().all()


def test_no_density_without_noise():
    schedule, t = stable_diffusion(), torch.tensor([500])
    step = transition(DDIM(0.0), schedule, normal(1, 3), normal(1, 3), t, t - 20)
    assert (step.std == 0).all()
    for use in (
        lambda: log_importance_weight(step, step),
        lambda: log_importance_weight(step, step, step.mean),
        lambda: step.log_prob(step.mean),
        lambda: step_coefficient(DDIM(0.0), schedule, t, t - 20),
    ):
        with pytest.raises(ValueError, match="density"):
            use()


def test_a_draw_and_an_expectation_exclude_each_other():
    g = Gaussian(normal(1, 3), f64(1))
    with pytest.raises(ValueError, match="not both"):
        log_importance_weight(g, g, g.mean, under=g)


def test_float32_weights_agree_with_float64():
    """Cancellation does not eat the weight where the std is smallest."""
    abar, t = scaled_linear(), torch.tensor([1, 2, 20, 21, 63, 500, 999])
    x0, eps = normal(7, 4, 16, 16), normal(7, 4, 16, 16, seed=1)
    pred, z = eps + 0.3 * normal(7, 4, 16, 16, seed=2), normal(7, 4, 16, 16, seed=3)
    found = []
    for dtype in (torch.float64, torch.float32):
        schedule = VPSchedule(abar.to(dtype), "epsilon")
        truth = x0.to(dtype), eps.to(dtype)
        s = previous_timestep(schedule, t, 50)
        xt = add_noise(schedule, *truth, t)
        q = transition(DDIM(), schedule, *truth, t, s)
        p = transition(DDIM(), schedule, *predict_x0_eps(schedule, pred.to(dtype), xt, t), t, s)
        found.append(log_importance_weight(p, q, q.mean + q.std * z.to(dtype)))
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1].double(), found[0], rtol=2e-3, atol=1e-5)
