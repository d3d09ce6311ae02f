"""A few steps of a config at full size, with random weights and noise for data: does it run, how fast, in how much memory?"""

import json
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.text import Text

from sipo.backbones import read_architecture
from sipo.backbones.random_weights import write_random_checkpoint
from sipo.config import Config, parse_config
from sipo.data.media.encode_video import encode_png, encode_video
from sipo.files import write_atomic
from sipo.plan.benchmark import UNDISTURBED, medians
from sipo.plan.plan import Plan
from sipo.run import RunDir
from sipo.size import Size
from sipo.train.loop import train
from sipo.train.record import PARTS


@dataclass(frozen=True)
class Rehearsal:
    """seconds: per optimizer step by part, medians over the steps after the first. memory: peak bytes, of the GPU where
    there is one, else of the whole process (data and Python included)."""

    device: str
    size: Size
    seconds: dict[str, float]
    memory: int
    steps: int


def rehearse(config: Config, folder: Path, num_steps: int, console: Console) -> Rehearsal:
    """Train `num_steps` steps of `config` on a random checkpoint of its model's shape, written into `folder` once.

    Batch size, precision, policy, objective and size are the config's; a cache is used where it has one, in `folder`.
    Samples, validation and extra logs are off. Raises UserError for a model whose shapes are not known here.
    """
    architecture = read_architecture(config.model)
    size = architecture.size(config.data.size)
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "model_index.json").is_file():
        dtype = config.model.frozen_dtype(config.train.compute_dtype)
        with console.status(Text(f"writing random weights into {checkpoint}")):
            write_random_checkpoint(config.model, checkpoint, dtype)
    kind = "edits" if architecture.takes_source else "pairs"
    pairs = _noise_pairs(
        folder / f"{kind}-{size.height}x{size.width}x{size.num_frames}", size, architecture.takes_source
    )
    raw = _rehearsed(config.to_dict(), folder, checkpoint, pairs, num_steps)
    with console.status(f"{num_steps} steps at {size}"):
        train(parse_config(raw), Console(quiet=True))
    run = RunDir(Path(raw["run"]))
    steps = [line["seconds"] for line in run.read_metrics("train")]
    counted = steps[1:] or steps
    device = json.loads(run.env.read_text("utf-8")).get("device", "cpu")
    return Rehearsal(device, size, medians(counted), _peak_memory(), len(counted))


def _rehearsed(raw: dict[str, Any], folder: Path, checkpoint: Path, pairs: Path, num_steps: int) -> dict[str, Any]:
    cache = str(folder / f"cache-{pairs.parent.name}") if raw["data"]["cache"] else None
    data = {"path": str(pairs), "cache": cache, "validation": None, "noise": "drawn"}
    plain = dict.fromkeys(("revision", "variant", "vae", "lora"))
    return {
        **raw,
        "run": str(folder / f"run-{os.getpid()}"),
        "model": {**raw["model"], "path": str(checkpoint), **plain},
        "data": {**raw["data"], **data},
        "train": {**raw["train"], **UNDISTURBED, "num_steps": num_steps},
        "log": {"tensorboard": False},
    }


def _noise_pairs(folder: Path, size: Size, with_source: bool) -> Path:
    """Two pairs of noise as a manifest; its path."""
    manifest, rng = folder / "pairs.jsonl", np.random.default_rng(0)
    if manifest.is_file():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(2):
        names = {}
        for member in ("chosen", "rejected"):
            frames = [_noise(rng, size) for _ in range(size.num_frames + int(size.is_video))]
            names[member] = f"{number}-{member}.{'mp4' if size.is_video else 'png'}"
            content = encode_video(frames, size.fps) if size.fps else encode_png(frames[0])
            write_atomic(folder / names[member], content)
        if with_source:
            names["source"] = f"{number}-source.png"
            write_atomic(folder / names["source"], encode_png(_noise(rng, size)))
        lines.append(
            json.dumps({"prompt": f'noise {number} "{"of all sorts " * 512}"', **names})
        )  # longer than any encoder reads, those for quoted texts too
    write_atomic(manifest, "\n".join(lines) + "\n")
    return manifest


def _noise(rng: np.random.Generator, size: Size) -> Image.Image:
    """Blocks of colour, which a codec does not blow up."""
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((size.width, size.height), Image.Resampling.NEAREST)


def _peak_memory() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_of_process()


def peak_of_process() -> int:
    """Bytes of main memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def render(rehearsal: Rehearsal, plan: Plan, console: Console) -> None:
    """Time by part, the speed reached, and memory against the plan's."""
    total, planned = rehearsal.seconds["total"], plan.layouts[0].memory.total
    parts = ", ".join(f"{part} {rehearsal.seconds[part]:.3g}" for part in PARTS)
    for line in (
        f"{plan.model} at {rehearsal.size} on {rehearsal.device}, random weights; median of {rehearsal.steps}",
        f"seconds per step  {total:.4g} ({parts})",
        f"speed             {plan.step.total / total / 1e12:.3g} TFLOP/s of {plan.step.total / 1e12:,.2f} TFLOP a step",
        f"peak memory       {rehearsal.memory / 2**30:.2f} GiB; planned {planned / 2**30:.2f} GiB",
    ):
        console.print(line, highlight=False)
