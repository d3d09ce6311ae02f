"""Checkpoints that are either whole or ignored. Tensors lie in safetensors, the rest in JSON; nothing is pickled."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sipo.errors import UserError
from sipo.files import hash_file, sync_directory, write_atomic

MANIFEST = "manifest.json"  # written last: a folder without it is not a checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` updates. Nothing else is needed: every draw is a function of (seed, step, slot)."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]  # Optimizer.state_dict()
    ema: dict[str, Tensor] | None = None
    counters: dict[str, Any] | None = None  # overflows, skipped steps, the scaler's state


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `root/<step>/` under a temporary name, sync, rename; then drop all but the newest `keep`."""
    temporary = begin(root, checkpoint.step)
    tensors, scalars = flatten(checkpoint.optimizer)
    files = {"weights": checkpoint.weights, "optimizer": tensors, "ema": checkpoint.ema}
    for name, content in files.items():
        if content is not None:
            save_file({key: value.contiguous() for key, value in content.items()}, temporary / f"{name}.safetensors")
            _sync(temporary / f"{name}.safetensors")
    hashes = {path.name: hash_file(path) for path in sorted(temporary.iterdir())}
    return finish(root, temporary, {"optimizer": scalars}, checkpoint, hashes, keep)


def begin(root: Path, step: int) -> Path:
    """An empty folder under a name that does not count."""
    temporary = root / f".{step:06d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def finish(
    root: Path, temporary: Path, extra: dict[str, Any], checkpoint: Checkpoint, hashes: dict[str, str], keep: int
) -> Path:
    """Write the manifest, let the folder count, drop all but the newest `keep`. Its files are on disk by now."""
    folder = root / f"{checkpoint.step:06d}"
    manifest = {"step": checkpoint.step, **extra, "counters": checkpoint.counters or {}, "sha256": hashes}
    write_atomic(temporary / MANIFEST, json.dumps(manifest))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    sync_directory(root)
    for old in saved_steps(root)[:-keep]:
        shutil.rmtree(root / f"{old:06d}", ignore_errors=True)
    return folder


def saved_steps(root: Path) -> list[int]:
    """Steps with a complete checkpoint, in order; unfinished folders are passed over."""
    if not root.is_dir():
        return []
    return sorted(int(path.name) for path in root.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file())


def load_checkpoint(root: Path, step: int, like: dict[str, Tensor] | None = None) -> Checkpoint:
    """Read one checkpoint. Raises UserError naming the file whose bytes are not those that were written.

    Of a sharded training, the tensors are sharded as the weights `like`, or whole without it.
    """
    folder = root / f"{step:06d}"
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{root} has no checkpoint of step {step}; it has {saved_steps(root) or 'none'}")
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest.get("sharded"):
        from sipo.train.sharded_checkpoint import load_sharded  # which builds on this module

        return load_sharded(folder, manifest, like)
    for name, expected in manifest["sha256"].items():
        if not (folder / name).is_file() or hash_file(folder / name) != expected:
            raise UserError(f"{folder / name} is damaged (checksum); delete {folder} to resume from an earlier step")
    tensors = {name: load_file(folder / f"{name}.safetensors") for name in ("weights", "optimizer")}
    ema = load_file(folder / "ema.safetensors") if "ema.safetensors" in manifest["sha256"] else None
    optimizer = unflatten(tensors["optimizer"], manifest["optimizer"])
    return Checkpoint(manifest["step"], tensors["weights"], optimizer, ema, manifest["counters"])


def flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named `index.key`, and its plain values (JSON keeps floats exactly)."""
    tensors, plain = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{index}.{key}"] = value
    return tensors, {"plain": plain, "param_groups": state["param_groups"]}


def unflatten(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | scalars["plain"]).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in scalars["param_groups"]]
    return {"state": state, "param_groups": groups}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
