"""The rate as a function of the step, clipping, AdamW, fp16's scaler (which torch has for CPUs too), the moving average."""

from dataclasses import replace

import pytest
import torch

from sipo.config import TrainConfig
from sipo.train.optim import Ema, Updater, learning_rate, make_optimizer


def test_warm_up_moves_from_the_first_update():
    config = TrainConfig(learning_rate=1.0, warmup_steps=4, num_steps=100)
    assert [learning_rate(config, step) for step in (1, 2, 4, 5, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_decays_are_those_of_diffusers(scheduler):
    from diffusers.optimization import get_scheduler

    config = TrainConfig(learning_rate=0.3, lr_scheduler=scheduler, num_steps=20)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    oracle = get_scheduler(scheduler, optimizer, num_warmup_steps=0, num_training_steps=20)
    for step in range(1, 21):
        assert learning_rate(config, step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        oracle.step()


def test_average_follows_its_recurrence_and_swaps_in_and_out():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    ema = Ema({"w": weight}, decay=0.75)
    expected = weight.detach().clone()
    for value in (3.0, -1.0, 5.0):
        weight.data.fill_(value)
        ema.update()
        expected = 0.75 * expected + 0.25 * value
    torch.testing.assert_close(ema.average["w"], expected)
    with ema.swapped_in():
        torch.testing.assert_close(weight.detach(), expected)
    assert weight.tolist() == [5.0, 5.0]
    torch.testing.assert_close(ema.average["w"], expected)


CPU = torch.device("cpu")
CONFIG = TrainConfig(learning_rate=0.1, max_grad_norm=1.0)


def stepped(config: TrainConfig, allowed: list[bool], gradients: list[float]) -> tuple[torch.nn.Parameter, Updater]:
    """A weight after one step for each gradient, all at a rate of 0.1."""
    weight = torch.nn.Parameter(torch.ones(3))
    updater = Updater(config, [weight], CPU)
    for apply, gradient in zip(allowed, gradients, strict=True):
        updater.backward((weight * gradient).sum())
        updater.clip()
        updater.finish(0.1, apply)
    return weight, updater


def test_the_norm_is_that_before_clipping():
    weight = torch.nn.Parameter(torch.zeros(2))
    updater = Updater(CONFIG, [weight], CPU)
    updater.backward((weight * torch.tensor([30.0, 40.0])).sum())
    assert float(updater.clip()) == pytest.approx(50.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


def test_a_refused_update_leaves_weights_and_moments():
    weight, updater = stepped(CONFIG, [True, False, True], [1.0, 5.0, 1.0])
    expected, other = stepped(CONFIG, [True, True], [1.0, 1.0])
    assert weight.equal(expected)
    assert weight.grad is None
    assert updater.state_dict()["state"][0]["exp_avg"].equal(other.state_dict()["state"][0]["exp_avg"])


def test_scaled_gradients_give_the_same_update():
    half = replace(CONFIG, mixed_precision="fp16")
    torch.testing.assert_close(
        stepped(half, [True] * 3, [0.5, 3.0, 1.0])[0], stepped(CONFIG, [True] * 3, [0.5, 3.0, 1.0])[0]
    )


def test_an_overflow_is_the_scalers_and_a_refused_update_keeps_its_scale():
    half = replace(CONFIG, mixed_precision="fp16")
    weight, updater = stepped(half, [True], [float("inf")])
    assert weight.tolist() == [1.0] * 3
    assert updater.scaler_state()["scale"] == 2.0**15
    weight, updater = stepped(half, [False, True], [float("nan"), 1.0])  # of a loss that is not finite
    assert updater.scaler_state()["scale"] == 2.0**16
    assert (weight < 1).all()


def test_adam_is_adamw_without_decay():
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    ours = make_optimizer(TrainConfig(learning_rate=0.1), [weights[0]], torch.device("cpu"))
    adam = torch.optim.Adam([weights[1]], lr=0.1)
    for _ in range(3):
        for weight, optimizer in zip(weights, (ours, adam), strict=True):
            optimizer.zero_grad()
            weight.pow(4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1])
