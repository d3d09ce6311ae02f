"""The reference's errors on fixed draws: in files that runs share, and in memory as a training reads them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sipo.data.batches import PairBatch, schedule_slots
from sipo.data.cache.shards import read_checksum
from sipo.errors import UserError
from sipo.files import room_in, write_atomic
from sipo.rng import pair_generator

SHARDS, LEAST = 1000, 256  # how many files at most, and how many errors a file at least


@dataclass(frozen=True)
class KnownErrors:
    """The reference's errors of a training. `table`: (N, pairs, members) float32 by visit, NaN where no step reads one.

    `validation`: (held-out pairs, members) on the draws of validation, which never change.
    """

    table: Tensor
    validation: Tensor | None
    seed: int
    global_batch: int

    def of_step(self, batch: PairBatch, step: int) -> PairBatch:
        """A micro-batch of optimizer step `step` with its draws and errors."""
        num_draws, num_pairs, _ = self.table.shape
        slots = schedule_slots(num_pairs, self.seed, step - 1, self.global_batch)
        mine = [slots[slot] for slot in batch.slots.tolist()]
        visits, pairs = (torch.tensor(column) for column in zip(*((s.epoch, s.index) for s in mine), strict=True))
        draws = draws_of(self.seed, batch.ids, visits, num_draws)
        return replace(batch, draws=draws, reference_error=self.table[visits % num_draws, pairs].T)

    def of_validation(self, batch: PairBatch) -> PairBatch:
        """A batch of held-out pairs with its errors."""
        assert self.validation is not None
        return replace(batch, reference_error=self.validation[batch.slots].T)


def draws_of(seed: int, ids: Sequence[str], visits: Tensor, num_draws: int) -> Tensor:
    """The number of the draw, in 0 .. N - 1, of a visit to each pair, (B,).

    The offset of a pair mixes the strata of timesteps within an epoch, where these are stratified over a pair's draws.
    """
    offsets = [pair_generator(seed, id, 0, "first draw").initial_seed() % num_draws for id in ids]
    return (visits + torch.tensor(offsets)) % num_draws


@dataclass(frozen=True)
class Shards:
    """The errors of the first `needed` of `total` items, in files of equal length, which runs of one fingerprint share.

    errors-00000.safetensors     errors (n, members) float32
    errors-00000...seal          its sha256 and size: a file with it is finished
    manifest.json                the fingerprint: what determines the errors
    """

    folder: Path
    made_by: dict[str, Any]
    total: int
    needed: int

    @property
    def size(self) -> int:
        return max(-(-self.total // SHARDS), LEAST)

    @property
    def numbers(self) -> range:
        return range(-(-self.needed // self.size))

    def length(self, number: int) -> int:
        return min(self.size, self.total - number * self.size)

    def missing(self) -> list[int]:
        return [number for number in self.numbers if read_checksum(self.folder, _name(number)) is None]

    def write(self, number: int, errors: Tensor) -> None:
        with room_in(self.folder):
            if not (self.folder / "manifest.json").is_file():
                write_atomic(self.folder / "manifest.json", json.dumps(self.made_by, indent=1))
            content = safetensors.torch.save({"errors": errors.contiguous()})
            write_atomic(self.folder / _name(number), content)
            seal = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            write_atomic(self.folder / f"{_name(number)}.seal", json.dumps(seal))

    def read(self) -> Tensor:
        """(n, members), at least the needed ones. Raises UserError for a damaged file."""
        found = []
        for number in self.numbers:
            content, seal = (self.folder / _name(number)).read_bytes(), read_checksum(self.folder, _name(number))
            if seal is None or hashlib.sha256(content).hexdigest() != seal["sha256"]:
                raise UserError(f"{self.folder / _name(number)} is damaged (checksum): delete it; it is computed again")
            found.append(safetensors.torch.load(content)["errors"])
        return torch.cat(found)


def _name(number: int) -> str:
    return f"errors-{number:05d}.safetensors"
