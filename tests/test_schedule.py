import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from support.core import cogvideox, every_schedule, f64, normal, scaled_linear, stable_diffusion

from sipo import FlowSchedule, VPSchedule, add_noise, predict_x0_eps, previous_timestep, training_target


def test_stable_diffusions_abar():
    expected = {0: 0.99915, 1: 0.99829603, 20: 0.98131436, 63: 0.93758787, 100: 0.89422348, 500: 0.27633268}
    t = torch.tensor(list(expected))
    alpha, sigma = stable_diffusion().alpha_sigma(t)
    torch.testing.assert_close(alpha**2, f64(*expected.values()), rtol=0, atol=5.1e-9)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


@pytest.mark.parametrize(
    ("f", "golden"), [(3, (0.99745433, 0.72824193, 0.0953281)), (1, (0.99915, 0.88676128, 0.24101878))]
)
def test_cogvideoxs_abar(f, golden):
    scheduler = CogVideoXDDIMScheduler(snr_shift_scale=f, rescale_betas_zero_snr=True)
    alpha, sigma = VPSchedule(scheduler.alphas_cumprod, "v_prediction").alpha_sigma(torch.tensor([0, 100, 500, 999]))
    torch.testing.assert_close(alpha.double() ** 2, f64(*golden, 0), rtol=0, atol=2e-7)
    torch.testing.assert_close(alpha.double() ** 2, cogvideox(f)[[0, 100, 500, 999]], rtol=0, atol=2e-7)
    assert sigma[-1] == 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noising_and_target_are_those_of_diffusers(prediction):
    oracle = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction
    )
    schedule = VPSchedule(oracle.alphas_cumprod, prediction)
    x0, eps = normal(5, 4, 3, 3, dtype=torch.float32), normal(5, 4, 3, 3, seed=1, dtype=torch.float32)
    t = torch.tensor([0, 1, 63, 500, 999])
    torch.testing.assert_close(add_noise(schedule, x0, eps, t), oracle.add_noise(x0, eps, t))
    target = eps if prediction == "epsilon" else oracle.get_velocity(x0, eps, t)
    torch.testing.assert_close(training_target(schedule, x0, eps, t), target)


def test_flow_noising_is_that_of_diffusers():
    oracle = FlowMatchEulerDiscreteScheduler(shift=3.0)
    t = oracle.timesteps[[0, 400, 999]]
    x0, eps = normal(3, 2, 4, dtype=torch.float32), normal(3, 2, 4, seed=1, dtype=torch.float32)
    torch.testing.assert_close(add_noise(FlowSchedule(shift=3.0), x0, eps, t), oracle.scale_noise(x0, t, eps))


@pytest.mark.parametrize("name", every_schedule())
@pytest.mark.parametrize("shape", [(4,), (4, 2, 3), (4, 3, 2, 5, 5)])
def test_the_target_gives_back_x0_and_eps(name, shape):
    schedule = every_schedule()[name]
    t = torch.tensor([1, 400, 900, 999])
    x0, eps = normal(*shape), normal(*shape, seed=1)
    xt = add_noise(schedule, x0, eps, t)
    x0_hat, eps_hat = predict_x0_eps(schedule, training_target(schedule, x0, eps, t), xt, t)
    torch.testing.assert_close(x0_hat, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_hat, eps, rtol=1e-9, atol=1e-9)


def test_errors_of_the_predictions_convert():
    """eps error = sqrt(abar) v error; on a flow path eps error = (1 - s) v error, x_0 error = -s v error."""
    v = every_schedule()["v_prediction"]
    t, xt, pred = torch.tensor([700]), normal(1, 6), normal(1, 6, seed=1)
    delta = 0.01 * normal(1, 6, seed=2)
    moved = predict_x0_eps(v, pred + delta, xt, t)[1] - predict_x0_eps(v, pred, xt, t)[1]
    torch.testing.assert_close(moved, cogvideox(3)[700].sqrt() * delta)
    flow, s = FlowSchedule(), 0.7
    x0_moved, eps_moved = (
        a - b for a, b in zip(predict_x0_eps(flow, pred + delta, xt, t), predict_x0_eps(flow, pred, xt, t), strict=True)
    )
    torch.testing.assert_close(eps_moved, (1 - s) * delta, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(x0_moved, -s * delta, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_terminal_snr_is_finite(prediction):
    schedule = VPSchedule(cogvideox(1), prediction)
    pred, xt, t = normal(1, 8).requires_grad_(), normal(1, 8, seed=1), torch.tensor([999])
    x0_hat, eps_hat = predict_x0_eps(schedule, pred, xt, t)
    torch.testing.assert_close(eps_hat, xt)  # pure noise
    torch.testing.assert_close(x0_hat, -pred if prediction == "v_prediction" else pred)
    (grad,) = torch.autograd.grad(x0_hat.sum() + eps_hat.sum(), pred)
    assert grad.isfinite().all()


def test_epsilon_cannot_have_zero_terminal_snr():
    with pytest.raises(ValueError, match="zero terminal SNR"):
        VPSchedule(cogvideox(1), "epsilon")


@pytest.mark.parametrize(
    ("abar", "prediction", "message"),
    [
        (f64(0.9, 0.5), "flow", "prediction"),
        (f64(0.5, 0.9), "epsilon", "never increase"),
        (f64(1.0, 0.5), "epsilon", r"\[0, 1\)"),
        (f64(0.5, -0.1), "sample", r"\[0, 1\)"),
        (f64(0.5, float("nan")), "sample", r"\[0, 1\)"),
        (f64(0.9, 0.5)[None], "epsilon", "1-D"),
    ],
)
def test_wrong_tables_are_refused(abar, prediction, message):
    with pytest.raises(ValueError, match=message):
        VPSchedule(abar, prediction)


@pytest.mark.parametrize("fields", [{"shift": 0.0}, {"shift": -1.0}, {"num_train_timesteps": 0}])
def test_wrong_flows_are_refused(fields):
    with pytest.raises(ValueError, match="positive"):
        FlowSchedule(**fields)


def test_half_precision_is_computed_in_float32():
    schedule, t = VPSchedule(scaled_linear().float(), "v_prediction"), torch.tensor([500])
    half = normal(1, 3).bfloat16()
    assert add_noise(schedule, half, half, t).dtype == torch.float32
    assert training_target(schedule, half, half, t).dtype == torch.float32
    assert predict_x0_eps(schedule, half, half.float(), t)[0].dtype == torch.float32
    assert add_noise(schedule, half.double(), half.double(), t).dtype == torch.float64
    assert schedule.alpha_sigma(t)[0].dtype == torch.float32


def test_previous_timestep_on_a_vp_path():
    t = torch.tensor([0, 1, 19, 20, 21, 999])
    schedule = stable_diffusion()
    assert previous_timestep(schedule, t, 50).tolist() == [0, 0, 0, 0, 1, 979]
    assert previous_timestep(schedule, t, 1000).tolist() == [0, 0, 18, 19, 20, 998]
    assert previous_timestep(schedule, t, 30).dtype == torch.int64
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="num_inference_steps"):
            previous_timestep(schedule, t, steps)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_previous_timestep_walks_the_grid_of_diffusers(shift):
    oracle = FlowMatchEulerDiscreteScheduler(shift=shift)
    oracle.set_timesteps(sigmas=[1 - i / 20 for i in range(20)])
    walked = previous_timestep(FlowSchedule(shift=shift), oracle.timesteps[:-1], 20)
    torch.testing.assert_close(walked, oracle.timesteps[1:], rtol=1e-5, atol=1e-3)


def test_previous_timestep_on_a_flow_path_never_leads_up():
    t = torch.tensor([5.0, 20.0, 30.0, 1000.0])
    assert previous_timestep(FlowSchedule(), t, 50).tolist() == [5.0, 20.0, 20.0, 980.0]
    assert previous_timestep(FlowSchedule(), t.long(), 50).dtype == torch.float32
