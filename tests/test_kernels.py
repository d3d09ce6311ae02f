import math

import pytest
import torch
from core import KERNEL_PLACES, cogvideox, every_schedule, f64, normal, scaled_linear, stable_diffusion
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

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

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}


def one_step(kernel, schedule, pred, xt, t, num_inference_steps):
    s = previous_timestep(schedule, t, num_inference_steps)
    return transition(kernel, schedule, *predict_x0_eps(schedule, pred, xt, t), t, s)


def test_golden_ddim_step():
    t = torch.tensor([981, 501, 1])
    xt, pred = f64(0.5, 0.5, 0.5), f64(0.3, 0.3, 0.3)
    x0_hat, _ = predict_x0_eps(stable_diffusion(), pred, xt, t)
    step = one_step(DDIM(), stable_diffusion(), pred, xt, t, 50)
    torch.testing.assert_close(x0_hat, f64(2.643109, 0.466357, 0.488032), **KERNEL_PLACES)
    torch.testing.assert_close(step.mean, f64(0.491545, 0.490872, 0.494000), **KERNEL_PLACES)
    torch.testing.assert_close(step.std, f64(0.454463, 0.294785, 0.020648), **KERNEL_PLACES)
    torch.testing.assert_close(step.log_prob(step.mean + 0.1), f64(-0.154509, 0.245033, -8.766185), **KERNEL_PLACES)


@pytest.mark.parametrize(
    ("schedule", "steps", "golden"),
    [
        (stable_diffusion(), 50, {5: 2.548, 41: 0.517, 63: 0.275, 101: 0.163, 201: 0.093, 501: 0.071, 981: 0.131}),
        (stable_diffusion(), 50, {1: 0.50, 20: 10.7}),
        (stable_diffusion(), 1000, {2: 0.252, 5: 0.102, 63: 0.0096, 201: 0.0042}),
        (VPSchedule(cogvideox(3), "v_prediction"), 50, {21: 5.157, 63: 0.229, 501: 0.0075}),
        (VPSchedule(cogvideox(1), "v_prediction"), 50, {21: 5.440, 63: 0.258, 501: 0.0187}),
    ],
)
def test_golden_step_coefficients(schedule, steps, golden):
    t = torch.tensor(list(golden))
    coefficient = step_coefficient(DDIM(), schedule, t, previous_timestep(schedule, t, steps))
    for found, printed in zip(coefficient.tolist(), golden.values(), strict=True):
        decimals = len(str(printed).split(".")[1])
        assert round(found, decimals) == printed


def test_the_coefficient_peaks_at_one_grid_step():
    """w(t) is not monotone below T / K."""
    schedule, t = stable_diffusion(), torch.arange(1, 1000)
    coefficient = step_coefficient(DDIM(), schedule, t, previous_timestep(schedule, t, 50))
    assert coefficient.argmax() == 19  # t = 20
    assert (coefficient[:20].diff() > 0).all()
    assert (coefficient[19:400].diff() < 0).all()


def test_golden_flow_step():
    t, s = f64(500), f64(400)
    flow = FlowSchedule()
    step = transition(DDIM(), flow, *predict_x0_eps(flow, f64(0.3), f64(0.5), t), t, s)
    torch.testing.assert_close(step.mean, f64(0.383333), **KERNEL_PLACES)
    torch.testing.assert_close(step.std, f64(0.298142), **KERNEL_PLACES)
    torch.testing.assert_close(step.log_prob(step.mean + 0.1), f64(0.234996), **KERNEL_PLACES)
    torch.testing.assert_close(step_coefficient(DDIM(), flow, t, s), f64(0.15625))


@pytest.mark.parametrize(
    ("t", "s", "mean", "std", "log_prob"),
    [(500, 400, 0.43815, 0.221359, 0.486988), (1000, 900, 0.3475, 0.7, None)],
)
def test_golden_flow_grpo_step(t, s, mean, std, log_prob):
    flow, t, s = FlowSchedule(), f64(t), f64(s)
    step = transition(FlowSDE(0.7), flow, *predict_x0_eps(flow, f64(0.3), f64(0.5), t), t, s)
    torch.testing.assert_close(step.mean, f64(mean), **KERNEL_PLACES)
    torch.testing.assert_close(step.std, f64(std), **KERNEL_PLACES)
    if log_prob is not None:
        torch.testing.assert_close(step.log_prob(step.mean + 0.1), f64(log_prob), **KERNEL_PLACES)


@pytest.mark.parametrize("a", [0.3, 0.7])
def test_golden_flow_grpo_coefficient(a):
    flow, s, s_next = FlowSchedule(), f64(0.2, 0.5, 0.95, 1.0), f64(0.15, 0.4, 0.9, 0.9)
    d = s - s_next
    below_1 = (1 + a**2 / 2) ** 2 * d * (1 - s) / (2 * a**2 * s)
    expected = torch.where(s < 1, below_1, d * (1 - s_next) / (2 * a**2))
    torch.testing.assert_close(step_coefficient(FlowSDE(a), flow, 1000 * s, 1000 * s_next), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_diffusers_ddim(prediction, eta):
    oracle = DDIMScheduler(**SD, prediction_type=prediction, set_alpha_to_one=False, steps_offset=1)
    oracle.set_timesteps(50)
    schedule = VPSchedule(oracle.alphas_cumprod, prediction)
    pred, xt, z = (normal(1, 4, 6, 6, seed=i) for i in range(3))
    for t in oracle.timesteps.tolist():
        expected = oracle.step(pred, t, xt, eta=eta, variance_noise=z).prev_sample
        step = one_step(DDIM(eta), schedule, pred, xt, torch.tensor([t]), 50)
        torch.testing.assert_close(step.mean + step.std * z, expected.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [1, 2, 63, 500, 999])
def test_k_equal_t_is_the_ddpm_posterior(t):
    oracle = DDPMScheduler(**SD, variance_type="fixed_small")
    schedule = VPSchedule(oracle.alphas_cumprod.double(), "epsilon")
    pred, xt = normal(1, 4, 6, 6), normal(1, 4, 6, 6, seed=1)
    step = one_step(DDIM(1.0), schedule, pred, xt, torch.tensor([t]), 1000)
    z = torch.randn(xt.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = oracle.step(pred, t, xt, generator=torch.Generator().manual_seed(5)).prev_sample
    torch.testing.assert_close(step.mean + step.std * z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_without_noise_is_the_euler_step(shift):
    oracle = FlowMatchEulerDiscreteScheduler(shift=shift)
    oracle.set_timesteps(sigmas=[1 - i / 20 for i in range(20)])
    flow = FlowSchedule(shift=shift)
    v, xt = normal(1, 2, 5, dtype=torch.float32), normal(1, 2, 5, seed=1, dtype=torch.float32)
    for t in oracle.timesteps[:-1]:  # the last step of diffusers ends at s = 0, ours at 1 / K
        step = one_step(DDIM(0.0), flow, v, xt, t[None], 20)
        torch.testing.assert_close(step.mean, oracle.step(v, t, xt).prev_sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", every_schedule())
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_marginals(name, eta):
    """x_s = mean + std z of the true (x_0, eps) has the variance sigma_s^2 about alpha_s x_0, whatever eta."""
    schedule, t = every_schedule()[name], torch.tensor([50, 400, 950])
    s = previous_timestep(schedule, t, 50)
    alpha, sigma = schedule.alpha_sigma(s, torch.float64)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    of_eps, of_x0 = (transition(DDIM(eta), schedule, *truth, t, s) for truth in ((zero, one), (one, zero)))
    torch.testing.assert_close(of_x0.mean, alpha)
    torch.testing.assert_close(of_eps.mean**2 + of_eps.std**2, sigma**2)


def test_flow_grpo_inflates_the_marginal_variance():
    flow, s = FlowSchedule(), f64(0.9, 0.5, 0.2)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    step = transition(FlowSDE(), flow, zero, one, 1000 * s, 1000 * (s - 0.1))
    inflation = (step.mean**2 + step.std**2) / (s - 0.1) ** 2
    assert (inflation > 1.05).all()
    assert (inflation < 1.75).all()


@pytest.mark.parametrize("name", ["epsilon", "v_prediction", "flow"])
def test_eta_1_is_bayes(name):
    """q(x_s | x_t, x_0) from the joint normal of (x_s, x_t), x_t = (alpha_t / alpha_s) x_s + noise."""
    schedule, t = every_schedule()[name], torch.tensor([100, 500, 900])
    s = previous_timestep(schedule, t, 50)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        schedule.alpha_sigma(k, torch.float64) for k in (t, s.double() if name == "flow" else s)
    )
    x0, eps = normal(3), normal(3, seed=1)
    q = transition(DDIM(1.0), schedule, x0, eps, t, s)
    gain = alpha_t / alpha_s * sigma_s**2 / sigma_t**2
    torch.testing.assert_close(q.mean, alpha_s * x0 + gain * sigma_t * eps)
    torch.testing.assert_close(q.std**2, sigma_s**2 - gain**2 * sigma_t**2)


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


@pytest.mark.parametrize(
    "make", [lambda: DDIM(-0.1), lambda: DDIM(1.1), lambda: FlowSDE(0.0), lambda: DDIM(float("nan"))]
)
def test_kernels_check_their_fields(make):
    with pytest.raises(ValueError, match="must"):
        make()


def test_flow_sde_refuses_a_vp_path():
    t = torch.tensor([500])
    with pytest.raises(ValueError, match="flow path"):
        transition(FlowSDE(), stable_diffusion(), normal(1, 3), normal(1, 3), t, t - 20)


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
