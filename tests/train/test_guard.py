"""NaN and infinity stop before the update, with the pairs that caused them."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from sipo.config import TrainConfig
from sipo.errors import UserError
from sipo.train.guard import MAX_OVERFLOWS_IN_A_ROW, Guard, nonfinite_flags

IDS = {0: "a.parquet:5", 1: "a.parquet:9", 2: "b.parquet:1", 3: "b.parquet:2"}


def table(flags, norm: float = 1.0) -> dict[str, np.ndarray]:
    count = len(flags)
    return {"nonfinite": np.array(flags, float), "slot": np.arange(count, dtype=float), "t": np.arange(count) * 100.0,
            "grad_norm": np.full(count, norm)}  # fmt: skip


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
    guard = Guard(TrainConfig())
    assert guard.allows(1, table([0, 0]), IDS, Accelerator())
    assert guard.counts() == {"overflows": 0, "skipped": 0}


def test_the_pair_with_the_bad_loss_is_named_with_its_timestep():
    with pytest.raises(UserError, match=r"step 7: NaN or infinity in the loss of a.parquet:9 \(t = 100\)\.") as error:
        Guard(TrainConfig()).allows(7, table([1, 2, 1, 1], float("nan")), IDS, Accelerator())
    assert "b.parquet" not in str(error.value)


def test_a_bad_gradient_names_the_micro_batch():
    with pytest.raises(UserError, match=r"gradients of a micro-batch among b.parquet:1 \(t = 200\), b.parquet:2"):
        Guard(TrainConfig()).allows(7, table([0, 0, 1, 1], float("inf")), IDS, Accelerator())


def test_skipping_has_a_limit():
    guard = Guard(TrainConfig(on_nonfinite="skip", max_skipped_steps=2))
    for step in (1, 2):
        assert not guard.allows(step, table([2, 0]), IDS, Accelerator())
        assert guard.counts()["skipped"] == 1
    assert guard.allows(3, table([0, 0]), IDS, Accelerator())
    with pytest.raises(UserError, match="more than 2 skipped steps"):
        guard.allows(4, table([2, 0]), IDS, Accelerator())


class Scaled:
    """What the guard reads of an accelerator with an fp16 scaler."""

    scaler = object()
    num_processes = 1


def test_overflows_of_fp16_are_counted_and_too_many_in_a_row_stop():
    guard = Guard(TrainConfig())
    for step in range(1, MAX_OVERFLOWS_IN_A_ROW):
        assert guard.allows(step, table([0, 0], float("inf")), IDS, Scaled())
        assert guard.counts()["overflows"] == 1
    with pytest.raises(UserError, match="20 times in a row"):
        guard.allows(MAX_OVERFLOWS_IN_A_ROW, table([0, 0], float("inf")), IDS, Scaled())


def test_one_good_step_resets_the_overflows():
    guard = Guard(TrainConfig())
    for step in range(3 * MAX_OVERFLOWS_IN_A_ROW):
        norm = 1.0 if step % 10 == 9 else float("inf")
        assert guard.allows(step, table([0, 0], norm), IDS, Scaled())
