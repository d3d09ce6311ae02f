"""From per-pair numbers to a line of metrics.jsonl: means, curves over timesteps, a warning in words."""

import json
import math
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from sipo.files import write_atomic
from sipo.jsonl import read_jsonl

NUM_BINS = 10
MATERIAL = 0.1  # implicit rewards are logits: a fall by less moves no preference
# Means of these are kept by timestep bin as well; they are the paper's figures.
BINNED = ("loss", "w_chosen", "w_rejected", "reward_chosen", "reward_rejected", "reward_gap", "accuracy", "pruned",
          "clipped", "mse_policy_chosen", "mse_policy_rejected", "mse_reference_chosen",
          "mse_reference_rejected")  # fmt: skip


def summarise(pairs: dict[str, np.ndarray], num_train_timesteps: int) -> dict[str, Any]:
    """Means over the pairs of a global batch, the effective sample size, and means by timestep bin.

    `pairs` holds (N,) arrays by metric name, `t` among them. Implicit accuracy leaves ties out of its mean.
    """
    t = pairs["t"]
    pairs = {name: values for name, values in pairs.items() if name != "t"}
    for member in ("chosen", "rejected"):
        if f"log_iw_{member}" in pairs:
            pairs[f"w_{member}"] = np.exp(np.clip(pairs[f"log_iw_{member}"], -60, 60))
    line: dict[str, Any] = {name: _mean(name, pairs, np.ones(len(t), bool)) for name in pairs}
    if "weight" in pairs:
        weight = pairs["weight"] * (1 - pairs["pruned"])
        line["effective_sample_size"] = _number(weight.sum() ** 2 / max((weight**2).sum() * len(t), 1e-30))
    edges = np.linspace(0, num_train_timesteps, NUM_BINS + 1)
    where = np.clip(np.digitize(t, edges) - 1, 0, NUM_BINS - 1)
    bins: dict[str, Any] = {"edges": edges.tolist(), "count": np.bincount(where, minlength=NUM_BINS).tolist()}
    for name in BINNED:
        if name in pairs:
            bins[name] = [_mean(name, pairs, where == i) for i in range(NUM_BINS)]
    return {**line, "bins": bins}


def _mean(name: str, pairs: dict[str, np.ndarray], where: np.ndarray) -> float | None:
    if name == "accuracy":
        where = where & (pairs["tie"] == 0)
    return _number(pairs[name][where].mean()) if where.any() else None


def _number(value: float) -> float | None:
    """Six significant digits; JSON knows neither NaN nor infinity."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


class MetricsFile:
    """metrics.jsonl, appended line by line; on resume the lines after the restored step are cut (all, at step 0)."""

    def __init__(self, path: Path, step: int):
        self.path = path
        lines = read_jsonl(path) if path.is_file() and step > 0 else []
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step))

    def write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class FallingRewards:
    """Says so when the implicit rewards of chosen and rejected fall together, the signature of a collapse.

    The gap may look healthy then: the policy gets worse on both members and worse faster on the rejected one.
    """

    def __init__(self, window: int = 20):
        self.window = window
        self.history: deque[tuple[float, float]] = deque(maxlen=2 * window)
        self.quiet_until = 0

    def update(self, step: int, line: dict[str, Any]) -> str | None:
        """A warning, at most once in five windows, or None. `line` is that of the step."""
        chosen, rejected = line.get("reward_chosen"), line.get("reward_rejected")
        if chosen is None or rejected is None:
            return None
        self.history.append((chosen, rejected))
        if len(self.history) < 2 * self.window or step < self.quiet_until:
            return None
        values = np.array(self.history)
        before, now = values[: self.window], values[self.window :]
        error = np.sqrt((before.var(0) + now.var(0)) / self.window)  # of the difference of the two means
        falls = now.mean(0) < before.mean(0) - 3 * error
        if not (falls.all() and (now.mean(0) < -MATERIAL).all()):
            return None
        self.quiet_until = step + 5 * self.window
        return (
            f"the rewards of chosen and rejected fall together (chosen {now[:, 0].mean():.3g}, rejected "
            f"{now[:, 1].mean():.3g}): the policy fits both worse than the reference does, which a growing gap hides. If "
            "the samples get worse too, try a lower learning rate, a larger beta, or pruning of early timesteps."
        )
