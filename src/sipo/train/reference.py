"""`train.reference.precompute`: the reference's errors, computed once on draws that are fixed, in the place of the reference.

Of the reference most objectives read `mse(reference, target)` alone: a number for each (pair, draw, member). A draw is
everything that chance decides about a pair: timestep, noise, crop, flip, dropped prompt. Visit v of a pair, in epoch v,
has draw v mod N, turned by an offset of the pair.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from sipo.backbones import Backbone
from sipo.config import Config
from sipo.data.batches import PairBatch, Slot, collate, schedule_slots
from sipo.data.dataset import PairDataset
from sipo.data.draws import epoch_order
from sipo.data.workers import end_with_parent, worker_errors
from sipo.errors import UserError
from sipo.files import digest
from sipo.processes import Processes
from sipo.progress import progress_bar
from sipo.run import RunDir
from sipo.train.inputs import Inputs, Rows
from sipo.train.known import KnownErrors, Shards, draws_of
from sipo.train.step import VALIDATION_STEP, reference_error
from sipo.train.training import Training

FORMAT = 1  # of the files, and of the draws


@dataclass(frozen=True)
class Precomputation:
    """What a training needs, and the numbers of the shards that are yet to be computed, equal in all processes."""

    num_draws: int
    train: Shards
    validation: Shards | None
    missing: tuple[list[int], list[int]]

    @property
    def complete(self) -> bool:
        return not any(self.missing)


def plan_errors(
    config: Config,
    found: dict[str, str],
    train: Rows,
    validation: Rows | None,
    backbone: Backbone,
    processes: Processes,
) -> Precomputation | None:
    """Which errors the config needs, and where they are: beside the cache, or in the run. None for a live reference.

    found: fingerprints of the model, of `identity`.
    """
    settings, num_draws = config.train, config.train.reference.precompute
    if num_draws is None:
        return None
    root = Path(f"{config.data.cache}-reference") if config.data.cache else RunDir(Path(config.run)).reference
    visits = settings.num_steps * settings.batch_size * settings.gradient_accumulation * processes.world
    first = _shards(root, fingerprint(config, found, train, backbone, num_draws), visits)
    second = _shards(root, fingerprint(config, found, validation, backbone, None)) if validation else None
    missing = processes.gather_objects((first.missing(), second.missing() if second else []))[0]
    return Precomputation(num_draws, first, second, missing)


def fingerprint(
    config: Config, found: dict[str, str], rows: Rows, backbone: Backbone, num_draws: int | None
) -> dict[str, Any]:
    """What determines the errors of those rows. num_draws: None for the draws of validation."""
    data, schedule = config.data, backbone.schedule
    t = config.timesteps(schedule, torch.arange(64, dtype=torch.float64) / 64, config.num_inference_steps)
    path = [schedule.prediction, *(column.tolist() for column in (t, *schedule.alpha_sigma(t)))]
    augmented = {"crop": data.crop, "flip": data.flip, "prompt dropout": data.prompt_dropout}
    return {
        "format": FORMAT,
        "denoiser": found["model.path"],  # with the LoRA of the config in it
        "start": found.get("policy.start") if config.policy.reference == "start" else None,
        **({name: key for name, key in found.items() if name.startswith("the ")} or backbone.fingerprint()),
        "guidance": config.model.guidance,
        "caption windows": config.model.caption_windows,
        "precision": [config.train.mixed_precision, config.model.dtype],
        **({"quantize": config.model.quantize} if config.model.quantize else {}),
        "path and density of timesteps": digest(path),
        "stratified": config.timesteps.stratified,
        "data": rows.source.fingerprint,
        "usable pairs": len(rows.usable),
        "usable rows": digest(rows.usable),
        "size": str(backbone.size),
        "cached": data.cache is not None,
        **({"noise": config.data.noise} if config.data.noise != "drawn" else {}),
        **(augmented if num_draws else {}),
        "members": 2 if config.loss.needs_rejected else 1,
        "seed": config.train.seed,
        "draws": num_draws or "of validation",
    }


def precompute(
    t: Training, planned: Precomputation, inputs: Inputs, workers: int, console: Console
) -> Training:  # fmt: skip
    """Compute what is missing, each process its share; returns the training with the errors and without frozen copies
    that only the reference needed."""
    train, validation, seed = planned.train, planned.validation, t.settings.seed
    num_pairs = len(inputs.train)

    def visited(number: int) -> list[Slot]:
        return schedule_slots(num_pairs, seed, number, train.size)[: train.length(number)]

    def held_out(number: int) -> list[Slot]:
        assert validation is not None
        start = number * validation.size
        return [Slot(index, 0, index) for index in range(start, start + validation.length(number))]

    def drawn(batch: PairBatch, number: int) -> PairBatch:
        visits = (number * train.size + batch.slots) // num_pairs
        return replace(batch, draws=draws_of(seed, batch.ids, visits, planned.num_draws))

    todo = planned.missing[0]
    total, left = (sum(train.length(number) for number in numbers) for numbers in (train.numbers, todo))
    with progress_bar(None if console.quiet else console, "reference", total, total - left) as advance:
        _compute(t, train, todo, inputs.train, visited, drawn, workers, advance)
    if validation and inputs.validation:
        _compute(t, validation, planned.missing[1], inputs.validation, held_out, lambda batch, _: batch, workers)
    t.processes.barrier()
    errors = train.read()
    table = errors.new_full((planned.num_draws, num_pairs, errors.shape[1]), torch.nan)
    for visit, found in enumerate(errors.split(num_pairs)):
        table[visit, torch.from_numpy(epoch_order(num_pairs, seed, visit)[: len(found)])] = found
    known = KnownErrors(table, validation.read() if validation else None, seed, t.global_batch)
    engine = t.engine.with_policy(t.engine.policy.without_reference(t.needs_old))
    return replace(t, engine=engine, known=known)


@torch.no_grad()
def _compute(
    t: Training, shards: Shards, missing: list[int], pairs: PairDataset, slots_of: Callable[[int], list[Slot]],
    drawn: Callable[[PairBatch, int], PairBatch], workers: int, advance: Callable[[float], None] = lambda _: None,
) -> None:  # fmt: skip
    """This process's share of the missing shards. Where a forward needs all processes, all run as many: a surplus one
    repeats, and is not written."""
    rank, world, size = t.processes.rank, t.processes.world, t.settings.batch_size
    longest = shards.length(0)
    rounds = range(rank, -(-len(missing) // world) * world if t.engine.collective else len(missing), world)
    mine = [missing[min(place, len(missing) - 1)] for place in rounds]

    def batches() -> Iterator[list[Slot]]:
        for number in mine:
            slots = slots_of(number)
            starts = range(0, len(slots), size)
            for n in range(-(-longest // size) if t.engine.collective else len(starts)):
                start = starts[n % len(starts)]
                yield slots[start : start + size]

    loader = DataLoader(
        pairs, batch_sampler=Once(batches), collate_fn=collate, num_workers=workers,  # pyright: ignore[reportArgumentType]
        worker_init_fn=end_with_parent,
    )  # fmt: skip
    found = iter(loader) if mine else iter(())
    with worker_errors():
        for place, number in zip(rounds, mine, strict=True):
            length, errors = shards.length(number), []
            for _ in range(-(-(longest if t.engine.collective else length) // size)):
                batch = drawn(next(found), number)
                error = reference_error(t, batch, VALIDATION_STEP, shards.total)  # (members, B)
                _require_finite(error, batch.ids, t.backbone)
                errors.append(error.T.float().cpu())
                advance(world * len(batch.ids))
            if place < len(missing):
                shards.write(number, torch.cat(errors)[:length])


@dataclass(frozen=True)
class Once:
    """A sampler of batches that a function yields."""

    batches: Callable[[], Iterator[list[Slot]]]

    def __iter__(self) -> Iterator[list[Slot]]:
        return self.batches()


def _require_finite(error: Tensor, ids: list[str], backbone: Backbone) -> None:
    sound = error.isfinite().all(0).tolist()
    if broken := [id for id, fine in zip(ids, sound, strict=True) if not fine]:
        why = backbone.nonfinite_weight() or "the cache holds NaN, or the model overflows in this train.mixed_precision"
        raise UserError(f"the reference's error is NaN or infinite for {', '.join(broken[:8])}: {why}")


def _shards(root: Path, made_by: dict[str, Any], visits: int | None = None) -> Shards:
    """visits: how many steps make in all; None for all items."""
    draws = made_by["draws"] if visits is not None else 1
    total = made_by["usable pairs"] * draws
    return Shards(root / digest(made_by), made_by, total, total if visits is None else min(visits, total))
