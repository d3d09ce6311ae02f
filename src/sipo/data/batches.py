"""Which pairs make up each optimizer step, and how the items of a batch are put together."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sipo.data.draws import epoch_order
from sipo.data.media.load import Member


@dataclass(frozen=True)
class Slot:
    """One place in the global batch of an optimizer step.

    index: which of the data set's pairs; epoch: the pass over the data that it belongs to (seeds crop and flip);
    slot: 0 .. global_batch - 1, whatever the number of processes (seeds noise and timestep).
    """

    index: int
    epoch: int
    slot: int


def schedule_slots(num_pairs: int, seed: int, step: int, global_batch: int) -> list[Slot]:
    """The slots of optimizer step `step` (from 0): a pure function, so resuming needs no state.

    Every epoch is a permutation of all pairs seeded by (seed, epoch). Batches run across the ends of epochs, so that
    every step has exactly `global_batch` pairs, also where there are fewer pairs than that.
    """
    if num_pairs < 1 or global_batch < 1 or step < 0:
        raise ValueError(f"no batch of {global_batch} for step {step} from {num_pairs} pairs")
    slots = []
    for slot in range(global_batch):
        epoch, position = divmod(step * global_batch + slot, num_pairs)
        slots.append(Slot(int(epoch_order(num_pairs, seed, epoch)[position]), epoch, slot))
    return slots


@dataclass(frozen=True)
class MicroBatches:
    """Batch sampler of one process: its micro-batches of slots for each of `steps` (from 0). A pure function.

    num_draws: what chance decides about a pair is that of as many epochs, which come again.
    """

    num_pairs: int
    seed: int
    batch_size: int
    accumulation: int
    steps: range
    rank: int
    world: int
    num_draws: int | None = None

    def __iter__(self) -> Iterator[list[Slot]]:
        stride = self.world * self.batch_size
        for step in self.steps:
            slots = schedule_slots(self.num_pairs, self.seed, step, stride * self.accumulation)
            if self.num_draws:
                slots = [replace(slot, epoch=slot.epoch % self.num_draws) for slot in slots]
            for start in range(self.rank * self.batch_size, len(slots), stride):
                yield slots[start : start + self.batch_size]


@dataclass(frozen=True)
class Item:
    """One pair as a data set hands it out; see `PairBatch` for the shapes, here without the batch dimension."""

    id: str
    slot: int
    prompt: str
    conditioning: dict[str, Tensor] | None
    members: list[Member]  # chosen and, if there is one, rejected; their micro-conditioning is (4,)
    strength: float
    times: tuple[float, float] | None = None
    seeds: tuple[int, ...] | None = None
    source: Tensor | None = None


@dataclass(frozen=True)
class PairBatch:
    """What one micro-step sees.

    encoded False: `chosen`, `rejected` are pixels (B, 3, H, W), of videos (B, F, 3, H, W), float32 in [-1, 1], and
    `conditioning` is None. encoded True: they are the VAE's moments (B, 2, ...), mean and log-variance, float32, and
    `conditioning` holds the text embeddings as the pipeline passes them, and what the model reads of sources, (B, ...)
    each. `rejected` is None in data for SFT. source: pixels (B, 3, H, W) of data with sources that is not encoded.
    micro_conditioning: original height and width, crop top and left of chosen and, if there is one, rejected (see
    `Crop.micro_conditioning`). times: of steps of trajectories, from t to s; `chosen` and `rejected` are then x_t and x_s.
    seeds: of the noise that the members were sampled from, where they are trained with that.
    draws: the numbers of the pairs' fixed draws, where these are not the step's. reference_error: as far as known before.
    """

    ids: list[str]
    slots: Tensor  # (B,) int64
    prompts: list[str]  # "" where the prompt was dropped
    conditioning: dict[str, Tensor] | None
    chosen: Tensor
    rejected: Tensor | None
    strength: Tensor  # (B,) float32
    encoded: bool
    micro_conditioning: Tensor  # (members, B, 4) float32
    times: Tensor | None = None  # (B, 2) float64
    seeds: Tensor | None = None  # (members, B) int64
    source: Tensor | None = None  # (B, 3, H, W) float32 in [-1, 1]
    draws: Tensor | None = None  # (B,) int64
    reference_error: Tensor | None = None  # (members, B) float32

    def pin_memory(self) -> "PairBatch":
        """In page-locked memory, so that copies to a GPU do not wait; torch's loader calls it where it is told to pin."""
        return replace(self, **{field.name: _pinned(getattr(self, field.name)) for field in fields(self)})


def _pinned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pinned(each) for name, each in value.items()}
    return value.pin_memory() if isinstance(value, Tensor) else value


def collate(items: list[Item]) -> PairBatch:
    texts = [item.conditioning for item in items if item.conditioning is not None]
    conditioning = {name: torch.stack([text[name] for text in texts]) for name in texts[0]} if texts else None
    times = [item.times for item in items if item.times is not None]
    seeds = [item.seeds for item in items if item.seeds is not None]
    sources = [item.source for item in items if item.source is not None]
    sides = list(zip(*(item.members for item in items), strict=True))
    media, crops = ([torch.stack([member[part] for member in side]) for side in sides] for part in (0, 1))
    return PairBatch(
        ids=[item.id for item in items],
        slots=torch.tensor([item.slot for item in items]),
        prompts=[item.prompt for item in items],
        conditioning=conditioning,
        chosen=media[0],
        rejected=media[1] if len(media) == 2 else None,
        strength=torch.tensor([item.strength for item in items], dtype=torch.float32),
        encoded=conditioning is not None,
        micro_conditioning=torch.stack(crops),
        times=None if not times else torch.tensor(times, dtype=torch.float64),
        seeds=None if not seeds else torch.tensor(seeds).T,
        source=None if not sources else torch.stack(sources),
    )
