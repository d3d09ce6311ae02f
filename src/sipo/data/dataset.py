"""The two data sets of training, pixels and cached latents, behind one protocol: `dataset[Slot] -> Item`."""

from dataclasses import dataclass
from typing import Literal, Protocol

from sipo.data.batches import Item, PairBatch, Slot, collate, schedule_slots
from sipo.data.cache.read import Cache
from sipo.data.draws import Draw, draw
from sipo.data.media.crop import CENTER, Position
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import MAX_PIXELS
from sipo.data.pairs.rows import BadRow, PairSource
from sipo.errors import UserError
from sipo.size import Size

__all__ = ["CachedPairs", "Item", "MediaPairs", "PairBatch", "PairDataset", "Slot", "collate", "schedule_slots"]

Crop = Literal["center", "random"]


class PairDataset(Protocol):
    """For torch's DataLoader: `batch_sampler` yields lists of `Slot`, `collate_fn` is `collate`. Picklable."""

    def __len__(self) -> int: ...

    def __getitem__(self, slot: Slot) -> Item: ...


def crop_position(crop: Crop, drawn: Draw) -> Position:
    return drawn.crop if crop == "random" else CENTER


@dataclass(frozen=True)
class MediaPairs:
    """Pairs decoded as they are needed.

    usable: the rows of `source` to train on, as `CheckReport.usable` or one side of `split_validation` lists them.
    with_rejected: False skips decoding the rejected member (SFT).
    """

    source: PairSource
    usable: list[int]
    size: Size
    crop: Crop = "center"
    flip: bool = False
    prompt_dropout: float = 0.0
    seed: int = 0
    with_rejected: bool = True
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.usable)

    def __getitem__(self, slot: Slot) -> Item:
        row = self.usable[slot.index]
        try:
            pair = self.source[row]
            drawn = draw(self.seed, slot.epoch, pair.id, self.flip, self.prompt_dropout)
            members = [pair.chosen, *([pair.rejected] if self.with_rejected and pair.rejected is not None else [])]
            crop = crop_position(self.crop, drawn)  # chosen and rejected share crop and flip
            loaded = [load_pixels(media, self.size, crop, self.max_pixels) for media in members]
        except BadRow as error:
            raise UserError(f"{self.source.id(row)}: {error}. Has the data changed since `sipo data check`?") from error
        pixels = [member.flip(-1) if drawn.flip else member for member, _ in loaded]
        geometry = [orientations[int(drawn.flip)] for _, orientations in loaded]
        return Item(
            id=pair.id,
            slot=slot.slot,
            prompt="" if drawn.empty_prompt else pair.prompt,
            conditioning=None,
            chosen=pixels[0],
            rejected=pixels[1] if len(pixels) == 2 else None,
            strength=pair.strength,
            chosen_geometry=geometry[0],
            rejected_geometry=geometry[1] if len(geometry) == 2 else None,
        )


@dataclass(frozen=True)
class CachedPairs:
    """Pairs from a `Cache`: moments and text embeddings. The crop was fixed at encoding; flip picks an orientation.

    usable: rows of the source, as in `MediaPairs`; each must be in the cache (KeyError otherwise).
    """

    cache: Cache
    usable: list[int]
    flip: bool = False
    prompt_dropout: float = 0.0
    seed: int = 0
    with_rejected: bool = True

    def __post_init__(self) -> None:
        if self.flip and self.cache.orientations == 1:
            raise UserError(f"data.flip is on, but {self.cache.path} holds one orientation: encode with flip: true")

    def __len__(self) -> int:
        return len(self.usable)

    def __getitem__(self, slot: Slot) -> Item:
        sample = self.cache.get(self.cache.position(self.usable[slot.index]))
        drawn = draw(self.seed, slot.epoch, sample.id, self.flip, self.prompt_dropout)
        prompt = 0 if drawn.empty_prompt else sample.prompt
        rejected = sample.rejected if self.with_rejected else None
        rejected_geometry = sample.rejected_geometry if self.with_rejected else None
        return Item(
            id=sample.id,
            slot=slot.slot,
            prompt=self.cache.prompt(prompt),
            conditioning=self.cache.conditioning(prompt),
            chosen=sample.chosen[int(drawn.flip)],
            rejected=None if rejected is None else rejected[int(drawn.flip)],
            strength=sample.strength,
            chosen_geometry=sample.chosen_geometry[int(drawn.flip)],
            rejected_geometry=None if rejected_geometry is None else rejected_geometry[int(drawn.flip)],
        )
