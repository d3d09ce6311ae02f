"""Tensors in safetensors files, one file a process: whole tensors, or the pieces of sharded ones that lie there.

A file's metadata records where its pieces begin, in the form of torch.distributed.checkpoint's Hugging Face storage. So
that library reads these files, any number of processes does, and nothing is pickled.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from sipo.errors import well_formed
from sipo.tensors import open_tensors

OFFSETS = "DCP_SHARDING_INFO"  # of the file's metadata: name -> {"saved_offsets": [...]}


def write_pieces(path: Path, tensors: dict[str, Tensor], is_main: bool) -> None:
    """Write this process's pieces of sharded tensors and, in the main process, all others; no file where there are none."""
    here = {name: tensor for name, tensor in tensors.items() if is_main or isinstance(tensor, DTensor)}
    pieces = {name: _local(tensor)[0].contiguous() for name, tensor in here.items()}
    metadata = {"format": "pt"}
    if any(isinstance(tensor, DTensor) for tensor in here.values()):
        offsets = {name: {"saved_offsets": _local(tensor)[1]} for name, tensor in here.items()}
        metadata |= {"DCP_VERSION": "1.0", OFFSETS: json.dumps(offsets)}
    if pieces := {name: piece for name, piece in pieces.items() if piece.numel()}:
        save_file(pieces, path, metadata)


def read_pieces(files: list[tuple[Path, str]], like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    """The tensors of the files, on the CPU; one that `like` knows as sharded, in the same shards and on its device.

    files: a path, and the prefix of its names.
    """
    pieces: dict[str, list[Piece]] = {}
    for path, prefix in files:
        for name, piece in pieces_of(path, prefix):
            pieces.setdefault(name, []).append(piece)
    return {name: _assembled(found, like(name)) for name, found in pieces.items()}


@dataclass(frozen=True)
class Piece:
    """A box of a tensor, in a file that is open."""

    file: Any
    key: str
    offset: list[int]
    shape: list[int]

    def read(self, offset: list[int], shape: list[int]) -> tuple[Any, Tensor] | None:
        """What it holds of the box at `offset`, and where in that box it belongs."""
        if (offset, shape) == (self.offset, self.shape):
            return ..., self.file.get_tensor(self.key)
        starts = [max(a, b) for a, b in zip(offset, self.offset, strict=True)]
        ends = [min(a + n, b + m) for a, n, b, m in zip(offset, shape, self.offset, self.shape, strict=True)]
        if any(start >= end for start, end in zip(starts, ends, strict=True)):
            return None
        there = tuple(slice(a - o, b - o) for a, b, o in zip(starts, ends, self.offset, strict=True))
        here = tuple(slice(a - o, b - o) for a, b, o in zip(starts, ends, offset, strict=True))
        return here, self.file.get_slice(self.key)[there]


def pieces_of(path: Path, prefix: str) -> Iterator[tuple[str, Piece]]:
    file = open_tensors(path)
    with well_formed(path):
        offsets = json.loads((file.metadata() or {}).get(OFFSETS, "{}"))
    for key in file.keys():  # noqa: SIM118  # not a dictionary
        shape = list(file.get_slice(key).get_shape())
        with well_formed(path):
            offset = list(offsets[key]["saved_offsets"]) if key in offsets else [0] * len(shape)
        yield prefix + key, Piece(file, key, offset, shape)


def _assembled(pieces: list[Piece], like: Tensor | None) -> Tensor:
    ends = ([o + n for o, n in zip(piece.offset, piece.shape, strict=True)] for piece in pieces)
    size = [max(column) for column in zip(*ends, strict=True)]
    if not isinstance(like, DTensor) or list(like.shape) != size:  # the optimizer's counters are not sharded
        return box(pieces, [0] * len(size), size)
    local, offset = _local(like)
    shard = box(pieces, offset, list(local.shape)).to(local.device)
    return DTensor.from_local(shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())


def box(pieces: list[Piece], offset: list[int], shape: list[int]) -> Tensor:
    """The box at `offset`, put together of the pieces that reach into it."""
    found = [part for piece in pieces if (part := piece.read(offset, shape))]
    if len(found) == 1 and list(found[0][1].shape) == shape:
        return found[0][1]
    result = torch.empty(shape, dtype=found[0][1].dtype if found else torch.float32)
    for where, part in found:
        result[where] = part
    return result


def _local(tensor: Tensor) -> tuple[Tensor, list[int]]:
    """The part of it that lies here, and where it begins."""
    if not isinstance(tensor, DTensor):
        return tensor, [0] * tensor.ndim
    (chunk,) = tensor.__create_chunk_list__()
    return tensor.to_local(), list(chunk.offsets)
