"""Looks at the weights during training: held-out pairs, a held-out score, and sample grids of the same prompts and seeds at every step."""

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sipo.config import Config, SampleConfig
from sipo.data.batches import Slot, collate
from sipo.data.dataset import PairDataset
from sipo.data.media.kinds import MediaFile
from sipo.errors import UserError, is_out_of_memory, shortage_of
from sipo.run import RunDir
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.samples.sources import require_sources
from sipo.size import Size
from sipo.terms import term_metrics
from sipo.train.best import Best
from sipo.train.record import Clock
from sipo.train.step import VALIDATION_STEP, batch_terms
from sipo.train.table import gather_pairs, pair_rows, summarise
from sipo.train.training import Training


def look(t: Training, step: int) -> None:
    """Validation and samples, where they are due, of the weights that an export after `step` would have."""
    settings, last = t.settings, step == t.settings.num_steps
    with t.ema.swapped_in() if t.ema else contextlib.nullcontext():
        if t.validation and due(step, settings.validate_every, last):
            t.recorder.write(validate(t, t.validation, step))
        if t.best and due(step, t.best.config.every, last):
            line = score_held_out(t, t.best, step)
            t.recorder.write(line)
            if t.best.add(line):
                weights = t.engine.unsharded_weights()
                if t.processes.is_main:
                    t.best.write(step, weights)
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
        if t.known:
            batch = t.known.of_validation(batch)
        terms = batch_terms(t, batch, VALIDATION_STEP, len(slots), clock)
        losses, metrics = t.objective(terms)
        rows.append(pair_rows({"loss": losses, **metrics, **term_metrics(terms)}, terms.t, batch.slots))
    by_name, _ = gather_pairs(rows, t.processes, rounds * batch_size)
    _, first = np.unique(by_name.pop("slot"), return_index=True)
    line = summarise({name: column[first] for name, column in by_name.items()}, t.backbone.schedule.num_train_timesteps)
    return {"kind": "validation", "step": step, "num_pairs": len(slots), **line}


def score_held_out(t: Training, best: Best, step: int) -> dict[str, Any]:
    """The mean score of samples of the held-out prompts, the same draws every time: a line of metrics.jsonl.

    Each process takes its share of the prompts; where a forward needs all of them, all sample and the first one scores.
    """
    from sipo.evaluate.scores.score import score  # here: it needs libraries that other trainings do not

    rank, world = (0, 1) if t.engine.collective else (t.processes.rank, t.processes.world)
    mine, values = best.prompts[rank::world], []
    with tempfile.TemporaryDirectory() as scratch:
        if mine:
            folder = draw_samples(t, mine, Path(scratch) / f"step {step}", step)
            if t.processes.is_main or not t.engine.collective:
                values = [(each.value, each.error) for each in score(folder, best.scorer, at_once(t))]
    found = [each for part in t.processes.gather_objects(values) for each in part]
    if failed := [error for _, error in found if error]:
        raise UserError(
            f"train.keep_best: the scorer {best.scorer.name} failed on a sample of step {step}: {failed[0]}"
        )
    scores = np.array([value for value, _ in found])
    error = scores.std(ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    return {"kind": "score", "step": step, "scorer": best.scorer.name, "score": float(scores.mean()),
            "standard_error": float(error), "num_samples": len(scores)}  # fmt: skip


def sample_prompts(sample: SampleConfig, of_pairs: Mapping[str, MediaFile | None]) -> list[PromptItem]:
    """The prompts of the config's file, else the first of the pairs, with their sources; one seed each."""
    if sample.prompts:
        return read_prompts(sample.prompts, sample.num_prompts, sample.seed)
    first = list(of_pairs.items())[: sample.num_prompts]
    return [PromptItem(prompt, sample.seed + i, source=source) for i, (prompt, source) in enumerate(first)]


def require_prompts(config: Config, size: Size) -> None:
    """Raises UserError where the config names files of prompts without sources, for a model that reads them."""
    keep = config.train.keep_best
    for key, of in (("sample.prompts", config.sample), ("train.keep_best.prompts", keep)):
        if of and of.prompts:
            try:
                require_sources(read_prompts(of.prompts, of.num_prompts), size.picture)
            except UserError as error:
                raise UserError(f"{key}: {of.prompts}: {error}") from error


def drop_samples_after(run: RunDir, step: int) -> None:
    """Remove the grids of steps that a resumed run has yet to repeat."""
    for later in run.sample_steps():
        if later > step or step == 0:
            shutil.rmtree(run.samples_at(later))


def write_samples(t: Training, run: RunDir, step: int) -> None:
    """Write `samples/<step>/`, or replace it; before the first step, complete what another run has drawn (`train`)."""
    folder = run.samples_at(step)
    if step:
        shutil.rmtree(folder, ignore_errors=True)
    draw_samples(t, t.prompts, folder, step)


def draw_samples(t: Training, prompts: Sequence[PromptItem], folder: Path, step: int) -> Path:
    """Samples of the weights as they are now, by the config's sample settings; returns the folder."""
    sample, backbone = t.sample, t.backbone
    settings = {"model": backbone.model.path, "weights": f"step {step}", "guidance_scale": sample.guidance_scale,
                "num_inference_steps": sample.num_inference_steps, **backbone.size.to_dict()}  # fmt: skip
    with backbone.encoders():
        sampler = backbone.sampler(sample.num_inference_steps, sample.guidance_scale)
        try:
            return generate(sampler, prompts, folder, settings, at_once(t))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"sampling {at_once(t)} at once after step {step}: {shortage_of(error)}\nTry sample.batch_size=1; "
                "train.sample_every=0 leaves sampling to `sipo generate`"
            ) from error


def at_once(t: Training) -> int:
    """Samples that are made, or scored, at once."""
    return t.sample.batch_size or t.backbone.size.at_once
