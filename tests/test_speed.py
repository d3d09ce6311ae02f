"""examples/speed.py: its plain loop is Diffusion-DPO, and steps of both are timed."""

import math
from pathlib import Path

import pytest

from sipo.mini import STILL

ROOT = Path(__file__).parents[1]


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    import speed

    return speed


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_plain_loop_begins_at_ln_2_and_moves_what_it_trains(speed, kind):
    """Policy and reference are equal before the first update, so every pair's loss is -log sigmoid(0)."""
    plain = speed.PlainTraining(STILL.weights, STILL.pairs, kind, 2)
    before = [weight.detach().clone() for weight in plain.trained]
    assert plain.step() == pytest.approx(math.log(2), abs=1e-5)
    assert plain.step() != pytest.approx(math.log(2), abs=1e-5)
    assert any(not weight.equal(old) for weight, old in zip(plain.trained, before, strict=True))
    all_weights = sum(weight.numel() for weight in plain.unet.parameters())
    assert (sum(weight.numel() for weight in plain.trained) == all_weights) == (kind == "full")


@pytest.mark.parametrize(("cached", "draws"), [(False, None), (True, 1)])
def test_as_many_steps_of_each_are_timed(speed, cached, draws):
    plain, ours = speed.compare("lora", cached, draws, 2, 2)
    assert len(plain) == len(ours) == 2
    assert all(seconds > 0 for seconds in plain + ours)
