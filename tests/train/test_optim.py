"""The learning rate as a function of the step, and the moving average."""

import pytest
import torch

from sipo.config import TrainConfig
from sipo.train.optim import Ema, learning_rate


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
