"""Looks at the weights during training: held-out pairs, and sample grids of the same prompts and seeds at every step."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sipo.config import SampleConfig
from sipo.data.batches import Slot, collate
from sipo.data.dataset import PairDataset
from sipo.run import RunDir
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.terms import term_metrics
from sipo.train.record import Clock
from sipo.train.step import batch_terms
from sipo.train.table import gather_pairs, pair_rows, summarise
from sipo.train.training import Training

VALIDATION_STEP = 0  # updates count from 1, so step 0 is free for the fixed draws of validation


def look(t: Training, step: int) -> None:
    """Validation and samples, where they are due, of the weights that an export after `step` would have."""
    settings, last = t.settings, step == t.settings.num_steps
    with t.ema.swapped_in() if t.ema else contextlib.nullcontext():
        if t.validation and due(step, settings.validate_every, last):
            t.recorder.write(validate(t, t.validation, step))
        if due(step, settings.sample_every, last):
            if t.processes.is_main:
                write_samples(t, t.run, step)
            elif t.engine.collective:
                with tempfile.TemporaryDirectory() as scratch:
                    write_samples(t, RunDir(Path(scratch)), step)
    t.processes.barrier()


def due(step: int, every: int, last: bool) -> bool:
    """Whether something happens after this step; `every` 0 switches it off."""
    return every > 0 and (last or step % every == 0)


@torch.no_grad()
def validate(t: Training, pairs: PairDataset, step: int) -> dict[str, Any]:
    """Held-out loss, implicit accuracy and margin, with noise and timesteps that never change: a line of metrics.jsonl.

    Each process takes every world-th batch; all of them return the same line.
    """
    batch_size, rank, world = t.settings.batch_size, t.processes.rank, t.processes.world
    slots = [Slot(index, 0, index) for index in range(len(pairs))]
    starts = range(0, len(slots), batch_size)
    rounds = -(-len(starts) // world)  # all processes run as many batches; a surplus one repeats and is dropped below
    clock, rows = Clock(t.processes.device), []
    for number in range(rounds):
        start = starts[(number * world + rank) % len(starts)]
        batch = collate([pairs[slot] for slot in slots[start : start + batch_size]])
        terms = batch_terms(t, batch, VALIDATION_STEP, len(slots), clock)
        losses, metrics = t.objective(terms)
        rows.append(pair_rows({"loss": losses, **metrics, **term_metrics(terms)}, terms.t, batch.slots))
    by_name, _ = gather_pairs(rows, t.processes, rounds * batch_size)
    _, first = np.unique(by_name.pop("slot"), return_index=True)
    line = summarise({name: column[first] for name, column in by_name.items()}, t.backbone.schedule.num_train_timesteps)
    return {"kind": "validation", "step": step, "num_pairs": len(slots), **line}


def sample_prompts(sample: SampleConfig, of_pairs: list[str]) -> list[PromptItem]:
    """The prompts of the config's file, else the first distinct ones of the pairs; one seed each."""
    if sample.prompts:
        return read_prompts(sample.prompts, sample.num_prompts, sample.seed)
    distinct = list(dict.fromkeys(of_pairs))[: sample.num_prompts]
    return [PromptItem(prompt, sample.seed + i) for i, prompt in enumerate(distinct)]


def drop_samples_after(run: RunDir, step: int) -> None:
    """Remove the grids of steps that a resumed run has yet to repeat."""
    for later in run.sample_steps():
        if later > step or step == 0:
            shutil.rmtree(run.samples / f"{later:06d}")


def write_samples(t: Training, run: RunDir, step: int) -> None:
    """Write `samples/<step>/`, or replace it."""
    folder, sample, backbone = run.samples / f"{step:06d}", t.sample, t.backbone
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"model": backbone.model.path, "weights": f"step {step}", "guidance_scale": sample.guidance_scale,
                "num_inference_steps": sample.num_inference_steps, **backbone.size.to_dict()}  # fmt: skip
    with backbone.encoders():
        sampler = backbone.sampler(sample.num_inference_steps, sample.guidance_scale)
        generate(sampler, t.prompts, folder, settings, sample.batch_size)
