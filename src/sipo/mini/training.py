"""What both stages share: seeded pictures, the learning rate over time, atomic checkpoints."""

import io
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from sipo.files import write_atomic
from sipo.jsonl import append_jsonl, read_jsonl
from sipo.mini.recipe import MIXTURE
from sipo.mini.scenes import sample_scene
from sipo.mini.wording import all_prompts
from sipo.mini.world import render

_PROMPTS = all_prompts()


def draw_pictures(n: int, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """`n` rendered scenes as (n, 64, 64, 3) uint8, and their prompts; categories after MIXTURE."""
    categories = rng.choice(list(MIXTURE), size=n, p=list(MIXTURE.values()))
    prompts = [_PROMPTS[c][rng.integers(len(_PROMPTS[c]))] for c in categories]
    pictures = np.stack([np.asarray(render(sample_scene(p, rng), rng)) for p in prompts])
    return pictures, [p["prompt"] for p in prompts]


def to_pixels(pictures: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def learning_rate(step: int, peak: float, num_steps: int, warmup: int, decay_share: float) -> float:
    """Linear warm-up, constant, then linear to zero over the last `decay_share` of the steps. `step` counts from 0."""
    up = (step + 1) / warmup
    down = (num_steps - step) / max(1.0, decay_share * num_steps)
    return peak * min(1.0, up, down)


def save_state(path: Path, state: dict) -> None:
    """Write a checkpoint of tensors and plain values; whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path) -> dict | None:
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


class Log:
    """Appends the mean of each metric to a JSON Lines file, and prints it, every `every` steps."""

    def __init__(self, path: Path, num_steps: int, console: Console, every: int = 25):
        self.path, self.num_steps, self.console, self.every = path, num_steps, console, every
        self.sums: dict[str, float] = {}
        self.count = 0
        self.start = time.monotonic()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.count += 1
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if step % self.every and step != self.num_steps:
            return
        means = {name: round(total / self.count, 5) for name, total in self.sums.items()}
        pace = (time.monotonic() - self.start) / self.count
        line = {"step": step, **means, "seconds_per_step": round(pace, 3)}
        append_jsonl(self.path, [line])
        left = (self.num_steps - step) * pace / 60
        self.console.print(f"step {step}/{self.num_steps}  {means}  {pace:.2f} s/step, {left:.0f} min left")
        self.sums, self.count, self.start = {}, 0, time.monotonic()

    @staticmethod
    def tail(path: Path) -> dict:
        """The last line written: means over the last steps."""
        return read_jsonl(path)[-1] if path.is_file() else {}
