"""The data sets of training, pixels, cached latents and steps of trajectories, behind one protocol: `dataset[Slot] -> Item`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sipo.data.batches import Item, Slot
from sipo.data.cache.read import Cache
from sipo.data.draws import CropMode, draw_augmentation
from sipo.data.media.load import Member
from sipo.data.media.pictures import MAX_PIXELS
from sipo.data.pairs.load import load_pair
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError
from sipo.samples.sources import source_pixels
from sipo.samples.trajectory import read_step, read_times, trajectory_of
from sipo.size import Size


class PairDataset(Protocol):
    """For torch's DataLoader: `batch_sampler` yields lists of `Slot`, `collate_fn` is `collate`. Picklable."""

    def __len__(self) -> int: ...

    def __getitem__(self, slot: Slot) -> Item: ...


@dataclass(frozen=True)
class MediaPairs:
    """Pairs decoded as they are needed.

    usable: the rows of `source` to train on, from `CheckReport.usable` or one side of `split_validation`.
    with_rejected: False skips decoding the rejected member (SFT). seeds: (len(usable), members), see `SampledNoise`.
    """

    source: PairSource
    usable: list[int]
    size: Size
    crop: CropMode = "center"
    flip: bool = False
    prompt_dropout: float = 0.0
    seed: int = 0
    with_rejected: bool = True
    max_pixels: int = MAX_PIXELS
    seeds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.usable)

    def __getitem__(self, slot: Slot) -> Item:
        row = self.usable[slot.index]
        drawn = draw_augmentation(self.seed, slot.epoch, self.source.id(row), self.flip, self.prompt_dropout)
        pair, members, source = load_pair(
            self.source, row, self.size, self.crop, drawn, self.with_rejected, self.max_pixels
        )

        def oriented(pixels: Tensor) -> Tensor:
            return pixels.flip(-1) if drawn.flip else pixels

        members = [Member(oriented(pixels), crops[int(drawn.flip)]) for pixels, crops in members]
        prompt, seeds = "" if drawn.empty_prompt else pair.prompt, seeds_at(self.seeds, slot)
        source = None if source is None else oriented(source)
        return Item(pair.id, slot.slot, prompt, None, members, pair.strength, seeds=seeds, source=source)


@dataclass(frozen=True)
class CachedPairs:
    """Pairs from a `Cache`: moments, text embeddings and what the model reads of sources.

    The crop was fixed at encoding; flip picks an orientation.

    usable: rows of the source, as in `MediaPairs`; each must be in the cache (KeyError otherwise). seeds: as there.
    """

    cache: Cache
    usable: list[int]
    flip: bool = False
    prompt_dropout: float = 0.0
    seed: int = 0
    with_rejected: bool = True
    seeds: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.flip and self.cache.orientations == 1:
            raise UserError(f"data.flip is on, but {self.cache.path} holds one orientation: encode with flip: true")
        _ = self.positions  # here, once, and not in each worker

    @cached_property
    def positions(self) -> np.ndarray:
        return self.cache.positions(self.usable)

    def __len__(self) -> int:
        return len(self.usable)

    def __getitem__(self, slot: Slot) -> Item:
        sample = self.cache.get(int(self.positions[slot.index]))
        drawn = draw_augmentation(self.seed, slot.epoch, sample.id, self.flip, self.prompt_dropout)
        prompt = 0 if drawn.empty_prompt else sample.prompt
        members = [Member(moments[int(drawn.flip)], crops[int(drawn.flip)]) for moments, crops in sample.members]
        members = members if self.with_rejected else members[:1]
        of_source = sample.empty_source if drawn.empty_prompt and sample.empty_source else sample.source
        source = {name: tensor[int(drawn.flip)] for name, tensor in of_source.items()}
        conditioning = self.cache.conditioning(prompt) | source
        seeds = seeds_at(self.seeds, slot)
        return Item(
            sample.id, slot.slot, self.cache.prompt(prompt), conditioning, members, sample.strength, seeds=seeds
        )


def seeds_at(seeds: np.ndarray | None, slot: Slot) -> tuple[int, ...] | None:
    return None if seeds is None else tuple(seeds[slot.index].tolist())


@dataclass(frozen=True)
class TrajectorySteps:
    """Every step of the trajectories of every pair, an item each. `times`: those of all trajectories, (n + 1,).

    size: of the pictures that trajectories started from, where the pairs have a source.
    """

    source: PairSource
    usable: list[int]
    times: tuple[float, ...]
    size: Size

    def __len__(self) -> int:
        return len(self.usable) * (len(self.times) - 1)

    def __getitem__(self, slot: Slot) -> Item:
        row, step = divmod(slot.index, len(self.times) - 1)
        pair = self.source[self.usable[row]]
        members = [Member(read_step(Path(str(media)), step), torch.zeros(4)) for media in (pair.chosen, pair.rejected)]
        times = self.times[step], self.times[step + 1]
        pixels = None if pair.source is None else source_pixels(pair.source, self.size)
        return Item(
            f"{pair.id}, step {step}", slot.slot, pair.prompt, None, members, pair.strength, times, source=pixels
        )


def open_trajectories(source: PairSource, usable: list[int], settings: dict[str, str], size: Size) -> TrajectorySteps:
    """The steps of the trajectories beside the media of the pairs, which must have been sampled by the `settings`.

    size: of the model's pictures. Raises UserError for pairs without them, or with others.
    """
    times, wrong = None, []
    for row in usable:
        for media in (source[row].chosen, source[row].rejected):
            if not isinstance(media, Path) or not trajectory_of(media).is_file():
                raise UserError(
                    f"{source.id(row)}: there is no trajectory beside its media. d3po trains on samples of `sipo online`, "
                    "which keeps their trajectories"
                )
            found, theirs = read_times(media)
            times = times or found
            wrong += [
                f"{source.id(row)}: {key} {theirs.get(key)}" for key in settings if theirs.get(key) != settings[key]
            ]
            if found != times:
                raise UserError(f"{source.id(row)}: its trajectory has other timesteps than the first one's")
    if wrong:
        expected = ", ".join(f"{key} {value}" for key, value in settings.items())
        raise UserError(f"{len(wrong)} trajectories were sampled otherwise than {expected}; the first: {wrong[0]}")
    return TrajectorySteps(source, usable, tuple(times or ()), size)
