"""Which pair stands where: a pure function of (seed, step, global batch)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data._utils.pin_memory import pin_memory

from sipo.data.batches import Item, collate, schedule_slots
from sipo.data.media.load import Member


@given(num_pairs=st.integers(1, 50), seed=st.integers(0, 2**31), global_batch=st.integers(1, 64))
def test_every_epoch_sees_every_pair_once(num_pairs: int, seed: int, global_batch: int) -> None:
    """Also across the ends of epochs, and with batches larger than the data."""
    steps = 3 * num_pairs // global_batch + 1
    slots = [slot for step in range(steps) for slot in schedule_slots(num_pairs, seed, step, global_batch)]
    assert len(slots) == steps * global_batch
    for epoch in range(3):
        seen = [slot.index for slot in slots if slot.epoch == epoch]
        assert sorted(seen) == list(range(num_pairs))
    assert [slot.slot for slot in slots] == list(range(global_batch)) * steps
    assert [slot.epoch for slot in slots] == sorted(slot.epoch for slot in slots)


def test_any_step_alone_gives_what_the_run_gave() -> None:
    run = [schedule_slots(17, 3, step, 5) for step in range(20)]
    assert [schedule_slots(17, 3, step, 5) for step in reversed(range(20))] == run[::-1]


def test_the_batch_size_does_not_change_the_order_of_the_data() -> None:
    small = [slot.index for step in range(12) for slot in schedule_slots(10, 0, step, 4)]
    large = [slot.index for step in range(3) for slot in schedule_slots(10, 0, step, 16)]
    assert small == large


def test_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [slot.index for slot in schedule_slots(100, seed, epoch, 100)]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != sorted(order(0, 0))


def test_first_places_are_uniform() -> None:
    firsts = np.bincount([schedule_slots(4, seed, 0, 1)[0].index for seed in range(2000)], minlength=4)
    assert np.abs(firsts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


@pytest.mark.parametrize(("num_pairs", "step", "global_batch"), [(0, 0, 1), (1, 0, 0), (1, -1, 1)])
def test_impossible_batches(num_pairs: int, step: int, global_batch: int) -> None:
    with pytest.raises(ValueError, match="no batch of"):
        schedule_slots(num_pairs, 0, step, global_batch)


def test_a_batch_is_pinned_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own loader: tensors, those of the conditioning, and what is not there."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(tensor.data_ptr()) or tensor)
    item = Item("a", 0, "x", {"text": torch.ones(2, 3)}, [Member(torch.ones(2, 4), torch.ones(4))], 1.0)
    batch = pin_memory(collate([item]))
    tensors = [
        value for value in (*vars(batch).values(), *batch.conditioning.values()) if isinstance(value, torch.Tensor)
    ]
    assert sorted(pinned) == sorted(tensor.data_ptr() for tensor in tensors)
    assert len(tensors) == 5  # slots, chosen, strength, micro-conditioning, text
    assert batch.rejected is None
    assert batch.ids == ["a"]


def test_collate_pixels() -> None:
    def members(n: int) -> list[Member]:
        return [Member(torch.full((3, 2, 2), n), torch.full((4,), n)), Member(torch.zeros(3, 2, 2), torch.zeros(4))]

    items = [Item(f"f:{n}", n + 3, f"p{n}", None, members(n), 0.5 + n) for n in range(2)]
    batch = collate(items)
    assert (batch.ids, batch.prompts, batch.encoded, batch.conditioning) == (["f:0", "f:1"], ["p0", "p1"], False, None)
    assert torch.equal(batch.slots, torch.tensor([3, 4]))
    assert batch.slots.dtype == torch.int64
    assert batch.chosen.shape == batch.rejected.shape == (2, 3, 2, 2)
    assert batch.chosen[1].eq(1).all()
    assert torch.equal(batch.strength, torch.tensor([0.5, 1.5]))
    assert batch.micro_conditioning.tolist() == [[[0] * 4, [1] * 4], [[0] * 4] * 2]


def test_collate_what_is_encoded_and_without_rejected() -> None:
    conditioning = {"prompt_embeds": torch.ones(7, 5, dtype=torch.bfloat16)}
    moments = Member(torch.zeros(2, 4, 8, 8), torch.zeros(4))
    batch = collate([Item("f:0", 0, "p", conditioning, [moments], 1.0)] * 3)
    assert batch.encoded
    assert batch.rejected is None
    assert batch.micro_conditioning.shape == (1, 3, 4)
    assert batch.conditioning["prompt_embeds"].shape == (3, 7, 5)
    assert batch.conditioning["prompt_embeds"].dtype == torch.bfloat16
