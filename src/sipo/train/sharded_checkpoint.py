"""Checkpoints of sharded trainings: each process writes and reads its own shards, through torch.distributed.checkpoint.

The shards are safetensors (DCP's Hugging Face storage): nothing is pickled, and another number of processes, or one,
reads them as well. The folder is whole or ignored, as any other checkpoint. All processes must call these functions,
and see the same files.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from sipo.errors import UserError
from sipo.files import hash_file
from sipo.train.checkpoint import Checkpoint, begin, finish, flatten, unflatten


def save_sharded(root: Path, checkpoint: Checkpoint, keep: int) -> None:
    """Write `root/<step>/` together with the other processes; then drop all but the newest `keep`."""
    rank, world = _place()
    temporary = begin(root, checkpoint.step) if rank == 0 else None
    (temporary,) = {path for path in _from_all(temporary) if path}  # nobody writes before the folder is there
    tensors, scalars = flatten(checkpoint.optimizer)
    content = _named(weights=checkpoint.weights, optimizer=tensors, ema=checkpoint.ema or {})
    with _alone_without_a_word():
        dcp.save(content, storage_writer=HuggingFaceStorageWriter(str(temporary), save_distributed=True))
    files = sorted(temporary.iterdir())[rank::world]
    hashes = dict(item for part in _from_all([(file.name, hash_file(file)) for file in files]) for item in part)
    if rank == 0:
        finish(root, temporary, {"optimizer": scalars, "sharded": True}, checkpoint, hashes, keep)
    _from_all(None)  # nobody goes on before it counts


def load_sharded(folder: Path, manifest: dict[str, Any], like: dict[str, Tensor] | None) -> Checkpoint:
    """Read a checkpoint of any number of processes. Tensors are sharded as the weights `like`, or whole without it.

    Raises UserError, on every process, naming the files whose bytes are not those that were written.
    """
    rank, world = _place()
    mine = sorted(manifest["sha256"])[rank::world]
    bad = [n for n in mine if not (folder / n).is_file() or hash_file(folder / n) != manifest["sha256"][n]]
    if damaged := sorted(name for part in _from_all(bad) for name in part):
        raise UserError(f"{folder / damaged[0]} is damaged (checksum); delete {folder} to resume from an earlier step")
    reader = HuggingFaceStorageReader(str(folder))
    weights = list((like or {}).values())
    content = {}
    for name, stored in reader.read_metadata().state_dict_metadata.items():
        part, _, key = name.partition(".")
        template = None
        if like:
            template = weights[int(key.partition(".")[0])] if part == "optimizer" else like.get(key)
        fits = template is not None and template.shape == stored.size  # the optimizer's counters are plain numbers
        dtype = stored.properties.dtype
        content[name] = (
            torch.zeros_like(template.detach(), dtype=dtype) if fits else torch.zeros(stored.size, dtype=dtype)
        )
    with _alone_without_a_word():
        dcp.load(content, storage_reader=reader)
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "ema": {}}
    for name, value in content.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    optimizer = unflatten(parts["optimizer"], manifest["optimizer"])
    return Checkpoint(manifest["step"], parts["weights"], optimizer, parts["ema"] or None, manifest["counters"])


def _named(**parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def _place() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _from_all(value: Any) -> list[Any]:
    """What every process gave, by rank; returns when all have called it."""
    if not dist.is_initialized():
        return [value]
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def _alone_without_a_word() -> warnings.catch_warnings:
    """DCP warns where there is one process; that is meant here."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
