"""NaN and infinity stop before the update, with the pairs that caused them."""

import numpy as np
import pytest
import torch

from sipo.config import TrainConfig
from sipo.errors import UserError
from sipo.processes import Processes
from sipo.train.guard import MAX_OVERFLOWS_IN_A_ROW, Guard, nonfinite_flags

IDS = {0: "a.parquet:5", 1: "a.parquet:9", 2: "b.parquet:1", 3: "b.parquet:2"}


def allows(guard: Guard, step: int, flags, norm: float = 1.0) -> bool:
    """The guard's decision on pairs with these flags, 100 timesteps apart."""
    count = len(flags)
    pairs = {"nonfinite": np.array(flags, float), "slot": np.arange(count, dtype=float), "t": np.arange(count) * 100.0}
    return guard.allows(step, pairs, norm, IDS, Processes())


def weights_with_gradients(value: float) -> list[torch.nn.Parameter]:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([1.0, value])
    return [weight]


def test_flags_tell_losses_from_gradients():
    good, bad = weights_with_gradients(1.0), weights_with_gradients(float("nan"))
    losses = torch.tensor([0.3, float("inf")])
    assert nonfinite_flags(losses, good, scaled=False).tolist() == [0, 2]
    assert nonfinite_flags(losses, bad, scaled=False).tolist() == [1, 2]
    assert nonfinite_flags(losses, bad, scaled=True).tolist() == [0, 2]


def test_a_finite_step_is_allowed():
    guard = Guard(TrainConfig(), scaled=False)
    assert allows(guard, 1, [0, 0])
    assert guard.counts() == {"overflows": 0, "skipped": 0}


def test_the_pair_with_the_bad_loss_is_named_with_its_timestep():
    with pytest.raises(UserError, match=r"step 7: NaN or infinity in the loss of a.parquet:9 \(t = 100\)\.") as error:
        allows(Guard(TrainConfig(), scaled=False), 7, [1, 2, 1, 1], float("nan"))
    assert "b.parquet" not in str(error.value)


def test_a_cause_outside_of_the_training_is_named_in_the_place_of_pairs():
    asked = []

    def cause(step, slots):
        asked.append((step, slots))
        return "the model's weights: x"

    with pytest.raises(UserError, match=r"^step 7: NaN or infinity in the model's weights: x$"):
        allows(Guard(TrainConfig(), scaled=False, cause=cause), 7, [1, 2, 1, 1], float("nan"))
    assert asked == [(7, [1])]
    with pytest.raises(UserError, match="step 1: NaN or infinity in the model's weights"):
        allows(Guard(TrainConfig(on_nonfinite="skip", max_skipped_steps=0), scaled=False, cause=cause), 1, [2])


def test_a_bad_gradient_names_the_micro_batch():
    with pytest.raises(UserError, match=r"gradients of a micro-batch among b.parquet:1 \(t = 200\), b.parquet:2"):
        allows(Guard(TrainConfig(), scaled=False), 7, [0, 0, 1, 1], float("inf"))


def test_skipping_has_a_limit():
    guard = Guard(TrainConfig(on_nonfinite="skip", max_skipped_steps=2), scaled=False)
    for step in (1, 2):
        assert not allows(guard, step, [2, 0])
        assert guard.counts()["skipped"] == 1
    assert allows(guard, 3, [0, 0])
    with pytest.raises(UserError, match="more than 2 skipped steps"):
        allows(guard, 4, [2, 0])


def test_overflows_of_fp16_are_counted_and_too_many_in_a_row_stop():
    guard = Guard(TrainConfig(), scaled=True)
    for step in range(1, MAX_OVERFLOWS_IN_A_ROW):
        assert allows(guard, step, [0, 0], float("inf"))
        assert guard.counts()["overflows"] == 1
    with pytest.raises(UserError, match="20 times in a row"):
        allows(guard, MAX_OVERFLOWS_IN_A_ROW, [0, 0], float("inf"))


def test_one_good_step_resets_the_overflows():
    guard = Guard(TrainConfig(), scaled=True)
    for step in range(3 * MAX_OVERFLOWS_IN_A_ROW):
        norm = 1.0 if step % 10 == 9 else float("inf")
        assert allows(guard, step, [0, 0], norm)
