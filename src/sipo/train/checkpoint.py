"""Checkpoints that are complete or ignored. Tensors are in safetensors files, the rest in JSON; nothing is pickled."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sipo.errors import UserError
from sipo.files import digest, hash_file, removed_on_error, room_in, sync_directory, write_atomic
from sipo.jsonl import read_object
from sipo.processes import Processes
from sipo.train.pieces import read_pieces, write_pieces

MANIFEST = "manifest.json"  # written last: a folder without it is not a checkpoint
SEAL = "digest"  # of all else in the manifest
PREFIXES = {f"{part}.safetensors": f"{part}." for part in ("weights", "optimizer", "ema")}  # files of version 0.1.0
ALONE = Processes()


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` updates. Nothing else is needed: every draw is a function of (seed, step, slot)."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]  # Optimizer.state_dict()
    ema: dict[str, Tensor] | None = None
    counters: dict[str, Any] | None = None  # overflows, skipped steps, the scaler's state


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep: int, processes: Processes = ALONE) -> Path:
    """Write `root/<step>/` under a temporary name, sync, rename; then drop all but the newest `keep`.

    All processes call this, and see the same files. Returns when the checkpoint counts.
    """
    folder, temporary = root / f"{checkpoint.step:06d}", root / f".{checkpoint.step:06d}.tmp"
    if processes.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        with room_in(root):
            temporary.mkdir(parents=True)
    processes.barrier()
    moments, plain = _flatten(checkpoint.optimizer)
    parts = {"weights": checkpoint.weights, "optimizer": moments, "ema": checkpoint.ema or {}}
    tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    path = temporary / f"{processes.rank + 1:05d}-of-{processes.world:05d}.safetensors"
    with room_in(root, sum(tensor.nbytes for tensor in tensors.values())), removed_on_error(temporary):
        write_pieces(path, tensors, processes.is_main)
    hashes = dict(item for item in processes.gather_objects(_synced(path)) if item)
    if processes.is_main:
        manifest = {
            "step": checkpoint.step,
            "optimizer": plain,
            "counters": checkpoint.counters or {},
            "sha256": hashes,
        }
        with removed_on_error(temporary):
            write_atomic(temporary / MANIFEST, json.dumps({**manifest, SEAL: digest(manifest)}))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        sync_directory(root)
        for old in saved_steps(root)[:-keep]:
            shutil.rmtree(root / f"{old:06d}", ignore_errors=True)
    processes.barrier()
    return folder


def saved_steps(root: Path) -> list[int]:
    """Steps with a complete checkpoint, in order; unfinished folders are ignored."""
    if not root.is_dir():
        return []
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file())


def load_checkpoint(
    root: Path, step: int, like: dict[str, Tensor] | None = None, processes: Processes = ALONE
) -> Checkpoint:
    """Read a checkpoint of any number of processes. Its tensors are sharded as the weights `like`, or unsharded.

    All processes call this. Raises UserError, in each of them, naming a file whose bytes have changed.
    """
    folder = root / f"{step:06d}"
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{root} has no checkpoint of step {step}; it has {saved_steps(root) or 'none'}")
    manifest = _read_manifest(folder)
    hashes: dict[str, str] = manifest["sha256"]
    mine = sorted(hashes)[processes.rank :: processes.world]
    bad = [name for name in mine if not (folder / name).is_file() or hash_file(folder / name) != hashes[name]]
    if damaged := sorted(name for found in processes.gather_objects(bad) for name in found):
        raise UserError(f"{folder / damaged[0]} is damaged (checksum); delete {folder} to resume from an earlier step")
    like = like or {}
    weights = list(like.values())

    def template(name: str) -> Tensor | None:
        part, _, key = name.partition(".")
        return weights[int(key.partition(".")[0])] if part == "optimizer" and weights else like.get(key)

    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}, "ema": {}}
    for name, tensor in read_pieces([(folder / name, PREFIXES.get(name, "")) for name in hashes], template).items():
        part, _, key = name.partition(".")
        parts[part][key] = tensor
    optimizer = _unflatten(parts["optimizer"], manifest["optimizer"])
    return Checkpoint(manifest["step"], parts["weights"], optimizer, parts["ema"] or None, manifest["counters"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Raises UserError for one that is damaged, or that somebody changed."""
    advice = f"Delete {folder} to resume from an earlier step"
    manifest = read_object(folder / MANIFEST, ("step", "optimizer", "counters", "sha256"), advice)
    sealed = manifest.pop(SEAL, None)  # versions up to 0.1 wrote none
    names = manifest["sha256"] if isinstance(manifest["sha256"], dict) else [""]
    if (sealed is not None and sealed != digest(manifest)) or any(
        Path(name).name != name or not name for name in names
    ):
        raise UserError(f"{folder / MANIFEST} was changed since it was written. {advice}")
    return manifest


def _synced(path: Path) -> tuple[str, str] | None:
    """A file's name and checksum once its bytes are on the disk; None where this process had nothing to write."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.name, hash_file(path)


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named `index.key`, and its plain values (JSON keeps floats exactly)."""
    tensors, plain = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{index}.{key}"] = value
    return tensors, {"plain": plain, "param_groups": state["param_groups"]}


def _unflatten(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_flatten`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | scalars["plain"]).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in scalars["param_groups"]]
    return {"state": state, "param_groups": groups}
