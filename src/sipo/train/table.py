"""Per-pair numbers: collected on the device, gathered from all processes, summarised in a line of metrics.jsonl."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sipo.processes import Processes

NUM_BINS = 10
# Means of these are kept by timestep bin as well; they are the paper's figures.
BINNED = ("loss", "w_chosen", "w_rejected", "reward_chosen", "reward_rejected", "reward_gap", "accuracy", "pruned",
          "clipped", "mse_policy_chosen", "mse_policy_rejected", "mse_reference_chosen",
          "mse_reference_rejected")  # fmt: skip


@dataclass(frozen=True)
class Update:
    """One optimizer step as all processes see it."""

    step: int
    learning_rate: float
    pairs: dict[str, np.ndarray]  # (N,) columns of the global batch by name, in the order of its slots
    grad_norm: float  # before clipping; may be infinite or NaN
    counts: dict[str, int]  # overflows and skipped updates, 0 or 1 each
    stop: bool  # whether a process was asked to stop
    seconds: dict[str, float]  # by part

    def line(self, num_train_timesteps: int) -> dict[str, Any]:
        """The step's line of metrics.jsonl."""
        pairs = {name: values for name, values in self.pairs.items() if name not in ("nonfinite", "slot")}
        return {
            "kind": "train", "step": self.step, "learning_rate": self.learning_rate,
            "grad_norm": _number(self.grad_norm), **self.counts, **summarise(pairs, num_train_timesteps),
            "seconds": self.seconds,
        }  # fmt: skip


def pair_rows(metrics: dict[str, Tensor], t: Tensor, slots: Tensor) -> dict[str, Tensor]:
    """The columns of one micro-batch, (B,) float64 each, still on the device."""
    wide = torch.float32 if t.device.type == "mps" else torch.float64
    columns = {**metrics, "t": t, "slot": slots.to(t.device, non_blocking=True)}
    return {name: value.detach().to(wide) for name, value in columns.items()}


def gather_pairs(
    rows: list[dict[str, Tensor]], processes: Processes, length: int, **scalars: Tensor | float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The columns (N,) of all processes in the order of their slots, and each scalar (world,) by rank.

    One device-to-host copy. `rows`: those of this process, which are filled up to `length` by repeating the last one,
    because processes gather tables of one size.
    """
    names = list(rows[0])
    table = torch.stack([torch.cat([row[name] for row in rows]) for name in names], dim=1)  # (<= length, columns)
    table = torch.cat([table, table[-1:].expand(length - len(table), -1)])
    header = table.new_zeros(1, len(names))
    for column, value in enumerate(scalars.values()):
        header[0, column] = value
    values = processes.gather(torch.cat([header, table])).cpu().numpy()  # (world, 1 + length, columns)
    pairs = values[:, 1:].reshape(-1, len(names))
    pairs = pairs[np.argsort(pairs[:, names.index("slot")], kind="stable")]
    by_name = {name: pairs[:, column] for column, name in enumerate(names)}
    return by_name, {name: values[:, 0, column] for column, name in enumerate(scalars)}


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
