"""Held-out loss, implicit accuracy and margin, with noise and timesteps that never change."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sipo.data.batches import Slot, collate
from sipo.data.dataset import PairDataset
from sipo.terms import term_metrics
from sipo.train.batch import VALIDATION_STEP, Alignment, batch_terms
from sipo.train.clock import Clock
from sipo.train.metrics import summarise


@torch.no_grad()
def validate(align: Alignment, pairs: PairDataset, step: int) -> dict[str, Any]:
    """A line of metrics.jsonl. Each process takes every world-th batch; all come back with the same line."""
    accelerator, batch_size = align.accelerator, align.config.train.batch_size
    rank, world = accelerator.process_index, accelerator.num_processes
    slots = [Slot(index, 0, index) for index in range(len(pairs))]
    starts = range(0, len(slots), batch_size)
    rounds = -(-len(starts) // world)  # all processes run as many batches; a surplus one repeats and is left out below
    clock, rows = Clock(accelerator.device), []
    for number in range(rounds):
        start = starts[(number * world + rank) % len(starts)]
        batch = collate([pairs[slot] for slot in slots[start : start + batch_size]])
        terms = batch_terms(align, batch, VALIDATION_STEP, len(slots), clock)
        losses, metrics = align.loss(terms)
        rows.append(pair_rows({"loss": losses, **metrics, **term_metrics(terms)}, terms.t, batch.slots))
    names, table = gather_rows(align, rows)
    _, first = np.unique(table[:, names.index("slot")], return_index=True)
    by_name = {name: table[first, column] for column, name in enumerate(names) if name != "slot"}
    line = summarise(by_name, align.backbone.schedule.num_train_timesteps)
    return {"kind": "validation", "step": step, "num_pairs": len(slots), **line}


def pair_rows(metrics: dict[str, Tensor], t: Tensor, slots: Tensor) -> dict[str, Tensor]:
    """Per-pair numbers of one micro-batch, (B,) float64 each, still on the device."""
    wide = torch.float32 if t.device.type == "mps" else torch.float64
    columns = {**metrics, "t": t, "slot": slots.to(t.device, non_blocking=True)}
    return {name: value.detach().to(wide) for name, value in columns.items()}


def gather_rows(align: Alignment, rows: list[dict[str, Tensor]]) -> tuple[list[str], np.ndarray]:
    """All pairs of all processes as a table (N, columns) in the order of their slots; the one device-to-host copy."""
    names = list(rows[0])
    table = torch.stack([torch.cat([row[name] for row in rows]) for name in names], dim=1)  # (N / world, columns)
    if align.accelerator.num_processes > 1:
        sizes = align.accelerator.gather(torch.tensor([len(table)], device=table.device))
        padded = table.new_zeros(int(sizes.max()), len(names))
        padded[: len(table)] = table
        gathered = align.accelerator.gather(padded).split(int(sizes.max()))
        table = torch.cat([part[: int(size)] for part, size in zip(gathered, sizes, strict=True)])
    values = table.cpu().numpy()
    return names, values[np.argsort(values[:, names.index("slot")], kind="stable")]
