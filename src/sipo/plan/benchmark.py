"""Seconds per training step, split by part: SIPO against Diffusion-DPO, with and without a cache."""

import contextlib
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipo.config import parse_config
from sipo.run import RunDir
from sipo.train.loop import train
from sipo.train.record import PARTS

WARM_UP = 3  # steps that are not counted: first calls allocate and compile
UNDISTURBED = {"sample_every": 0, "validate_every": 0, "checkpoint_every": 10**9}  # of `train`: steps and nothing else


@dataclass(frozen=True)
class Timing:
    """Median seconds per step by part, over the counted steps of all rounds."""

    name: str
    seconds: dict[str, float]


def benchmark(raw: dict[str, Any], num_steps: int, rounds: int, console: Console) -> list[Timing]:
    """Train `num_steps` steps of each variant, `rounds` times in turn, so that a slow minute hits all of them alike.

    `raw` is a config as YAML gives it; its run directory and cache are replaced by temporary ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        variants = _variants(raw, Path(folder), num_steps)
        steps: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        for number in range(rounds):
            for name, variant in variants.items():
                with console.status(Text(f"round {number + 1} of {rounds}: {name}")), contextlib.redirect_stdout(None):
                    variant = {**variant, "run": f"{folder}/{name}-{number}"}
                    train(parse_config(variant), Console(quiet=True))
                lines = RunDir(Path(variant["run"])).read_metrics("train")
                steps[name] += [line["seconds"] for line in lines[WARM_UP:]]
    return [Timing(name, medians(found)) for name, found in steps.items()]


def medians(steps: list[dict[str, float]]) -> dict[str, float]:
    """Of the seconds of several steps, by part."""
    return {part: statistics.median(step[part] for step in steps) for part in ("total", *PARTS)}


def render(timings: list[Timing], console: Console) -> None:
    """A table, and SIPO's cost over Diffusion-DPO's."""
    table = Table(title="seconds per optimizer step (medians)", title_justify="left")
    for column in ("", "total", *PARTS):
        table.add_column(column, justify="left" if not column else "right")
    for timing in timings:
        table.add_row(timing.name, *(f"{timing.seconds[part]:.4f}" for part in ("total", *PARTS)))
    console.print(table)
    total = {timing.name: timing.seconds["total"] for timing in timings}
    cost = total["sipo cached"] / total["diffusion_dpo cached"] - 1
    console.print(f"SIPO takes {cost:+.1%} over Diffusion-DPO (cached, same steps)", highlight=False)


def _variants(raw: dict[str, Any], folder: Path, num_steps: int) -> dict[str, dict[str, Any]]:
    train_settings = {**raw.get("train", {}), **UNDISTURBED, "num_steps": num_steps + WARM_UP}
    common = {**raw, "train": train_settings, "log": {"tensorboard": False}}
    losses = {
        "sipo": raw["loss"] if raw["loss"]["name"] == "sipo" else {"name": "sipo"},
        "diffusion_dpo": {"name": "diffusion_dpo"},
    }
    return {
        f"{loss} {'cached' if cached else 'uncached'}": {
            **common,
            "loss": losses[loss],
            "data": {**raw["data"], "validation": None, "cache": str(folder / "cache") if cached else None},
        }
        for cached in (True, False)
        for loss in ("sipo", "diffusion_dpo")
    }
