"""One step x_t -> x_s: golden numbers, diffusers' schedulers, marginals and Bayes."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from support.core import KERNEL_PLACES, cogvideox, every_schedule, f64, normal, stable_diffusion

from sipo import (
    DDIM,
    FlowSchedule,
    FlowSDE,
    VPSchedule,
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
