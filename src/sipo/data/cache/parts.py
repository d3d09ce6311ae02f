"""A shard in the making: what is encoded of it is kept now and then, so that a kill costs little."""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.tensors import open_tensors

T = TypeVar("T")


@dataclass(frozen=True)
class EncodedPairs:
    """Some pairs of a shard: what it holds of them, (n, ...) each, their ids, and what its header says beside them."""

    tensors: dict[str, Tensor]
    ids: list[str]
    header: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        """Of a shard with these pairs, or of a part of it."""
        return safetensors.torch.save(self.tensors, {**self.header, "ids": json.dumps(self.ids)})


def joined(parts: Sequence[EncodedPairs]) -> EncodedPairs:
    """One after another; at least one."""
    if len(parts) == 1:
        return parts[0]
    tensors = {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    return EncodedPairs(tensors, [id for part in parts for id in part.ids], parts[0].header)


def portions(batches: Iterable[T], seconds: float) -> Iterator[Iterator[T]]:
    """The batches in turn, in portions: one takes what is asked of it within so many seconds, but one batch at least."""
    batches = iter(batches)

    def portion(first: T, ends: float) -> Iterator[T]:
        yield first
        while time.monotonic() < ends and (batch := next(batches, None)) is not None:
            yield batch

    for first in batches:
        yield portion(first, time.monotonic() + seconds)


def write_part(out: Path, shard: str, number: int, pairs: EncodedPairs) -> None:
    write_atomic(_path(out, shard, number), pairs.content())


def read_parts(out: Path, shard: str, ids: Iterable[str]) -> list[EncodedPairs]:
    """The parts that an earlier start left of a shard of those pairs, up to the first one that is missing or damaged.

    As many of `ids` are read as the parts hold: most shards have none.
    """
    found: list[EncodedPairs] = []
    ids = iter(ids)
    while (path := _path(out, shard, len(found))).exists():
        try:
            with open_tensors(path) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
                header = dict(file.metadata() or {})
                part = EncodedPairs(tensors, json.loads(header.pop("ids")), header)
        except (UserError, KeyError, ValueError):
            break
        if not part.ids or part.ids != list(itertools.islice(ids, len(part.ids))):
            break
        found.append(part)
    return found


def remove_parts(out: Path, shard: str) -> None:
    for path in out.glob(f"{shard}.part-*"):
        path.unlink(missing_ok=True)


def _path(out: Path, shard: str, number: int) -> Path:
    return out / f"{shard}.part-{number:04d}"
