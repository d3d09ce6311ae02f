"""From a config to an open training. The config is taken apart here, and parts are handed on."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch.utils.data import DataLoader

from sipo.backbones import Architecture, Backbone, load_backbone, read_architecture
from sipo.backbones.captions import overlong
from sipo.backbones.quantize import num_entries
from sipo.config import Config, TrainConfig
from sipo.config.notices import notices
from sipo.data.batches import MicroBatches, PairBatch, collate
from sipo.data.dataset import PairDataset
from sipo.data.pairs.check import default_memory
from sipo.data.workers import end_with_parent, worker_errors
from sipo.files import write_atomic
from sipo.losses import Objective, beta_equivalents, resolve_horizon
from sipo.losses.common import PreferenceObjective
from sipo.processes import Processes, join_processes
from sipo.run import RunDir, environment
from sipo.scorers.choice import choose_one
from sipo.scorers.suited import require_suited
from sipo.train.best import Best, prompts_to_score, require_held_out
from sipo.train.cause import Causes
from sipo.train.checkpoint import Checkpoint, load_checkpoint, saved_steps
from sipo.train.d3po import require_trajectories
from sipo.train.engine import Engine, make_engine
from sipo.train.fit import require_fit
from sipo.train.guard import Guard
from sipo.train.identity import commits, identity, require_same_inputs, write_inputs
from sipo.train.inputs import Inputs, open_inputs, open_rows
from sipo.train.loggers import require_services
from sipo.train.look import drop_samples_after, require_prompts, sample_prompts
from sipo.train.optim import Ema, Updater
from sipo.train.policy import make_policy, start_folder
from sipo.train.record import Clock, NoRecorder, Recorder
from sipo.train.reference import plan_errors, precompute
from sipo.train.training import Training


@contextlib.contextmanager
def open_training(config: Config, console: Console) -> Iterator[Training]:
    """Open everything that a training needs, resumed after its newest checkpoint, and record how the run is made.

    Raises UserError and UsageError for what the user can fix. What it changes of the process (threads, deterministic
    kernels, random state, its group of processes) is as before when the context ends.
    """
    require_services(config)
    require_held_out(config)
    require_trajectories(config)
    start_folder(config.policy)
    run, settings = RunDir(Path(config.run)), config.train
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(join_processes())
        stack.enter_context(process_settings(settings, processes.device))
        if processes.is_main:
            stack.enter_context(run.lock())
        else:
            console = Console(quiet=True)
        for notice in notices(config):
            console.print(Text.assemble(("notice: ", "yellow"), notice))
        run.require_same_config(config, bool(saved_steps(run.checkpoints)))
        with processes.main_first():  # the others find what the first one downloaded
            architecture = read_architecture(config.model)  # the configs alone: the weights come later
            size = architecture.size(config.data.size)
            require_fit(config, architecture, size, processes.device)
            if architecture.takes_source:
                require_prompts(config, size)
            if scored := settings.keep_best:
                chosen = choose_one(scored.scorer, scored.worker).load_all()
                require_suited("train.keep_best.scorer", chosen, architecture, size)
        train_rows, validation_rows, checked = processes.of_main(lambda: open_rows(config, architecture, console))
        objective = resolve_horizon(config.loss, config.num_inference_steps)
        start = max(saved_steps(run.checkpoints), default=0)
        backbone = open_backbone(config, architecture)
        found = identity(config, train_rows, validation_rows, backbone)
        read = commits(train_rows, validation_rows)
        require_same_inputs(run, found, start, read)
        planned = plan_errors(config, found, train_rows, validation_rows, backbone, processes)
        processes.barrier()  # what follows talks, and some load faster than others
        runs_reference = config.needs_reference and not (planned and planned.complete)
        engine = open_policy(config, backbone, processes, runs_reference)
        inputs = open_inputs(config, train_rows, validation_rows, backbone, processes, console)

        weights = engine.policy.trainable
        updater = Updater(settings, list(weights.values()), processes.device)
        global_batch = settings.batch_size * settings.gradient_accumulation * processes.world
        causes = Causes(backbone, inputs.train, settings.seed, global_batch, start)
        guard = Guard(settings, scaled=updater.scaler is not None, cause=causes)
        ema = Ema(weights, settings.ema_decay) if settings.ema_decay else None
        if start:
            resume(load_checkpoint(run.checkpoints, start, dict(weights), processes), engine, updater, guard, ema)
        keep = settings.keep_best
        best = Best(run, keep, prompts_to_score(keep, inputs.prompts), start) if keep else None
        announce(console, config, engine, objective, processes, inputs, start)
        if processes.is_main:
            captions = train_rows.source.prompts(train_rows.usable)
            for cut in overlong(backbone.architecture, backbone.folder, captions, default_memory()):
                console.print(f"[yellow]captions[/] {cut}", highlight=False)
        if processes.is_main:
            write_record(run, config, processes, checked, start)
            write_inputs(run, found | read)
        num_timesteps = backbone.schedule.num_train_timesteps
        t = Training(
            run=run,
            settings=settings,
            processes=processes,
            start=start,
            backbone=backbone,
            engine=engine,
            compute=settings.compute_dtype,
            objective=objective,
            label_smoothing=config.data.label_smoothing,
            needs_reference=config.needs_reference,
            needs_old=config.needs_old,
            timesteps=config.timesteps,
            kernel=config.kernel,
            num_inference_steps=config.num_inference_steps,
            weight=config.weight,
            global_batch=global_batch,
            batches=micro_batches(inputs.train, settings, start, processes, config.data.workers),
            validation=inputs.validation,
            updater=updater,
            ema=ema,
            guard=guard,
            clock=Clock(processes.device),
            recorder=NoRecorder(),
            best=best,
            sample=config.sample,
            prompts=sample_prompts(config.sample, inputs.prompts),
            noise_dtype=train_rows.noise.dtype if train_rows.noise else None,
        )
        if planned:
            t = precompute(t, planned, inputs, config.data.workers, console)
            del engine  # and the frozen copy with it
        recorder = Recorder(run, config, num_timesteps, start, console) if processes.is_main else NoRecorder()
        processes.barrier()
        yield replace(t, recorder=stack.enter_context(recorder))


@contextlib.contextmanager
def process_settings(settings: TrainConfig, device: torch.device) -> Iterator[None]:
    """Threads, deterministic kernels and random state of this process while the context lasts."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            if settings.num_threads:
                torch.set_num_threads(settings.num_threads)
            if settings.deterministic:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True)
                torch.backends.cudnn.benchmark = False
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
            torch.backends.cudnn.benchmark = benchmark
            if workspace is None:
                os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def open_backbone(config: Config, architecture: Architecture) -> Backbone:
    """The model on the CPU, frozen parts in the compute dtype. With a cache, the encoders stay on disk."""
    encoders, compute = config.data.cache is None, config.train.compute_dtype
    return load_backbone(architecture, "cpu", compute, encoders=encoders, size=config.data.size)


def open_policy(config: Config, backbone: Backbone, processes: Processes, runs_reference: bool) -> Engine:
    """The policy on the backbone, ready to train. Weights are on the CPU until the engine moves them to their devices."""
    settings, compute = config.train, config.train.compute_dtype
    folder = start_folder(config.policy)
    weights = backbone.read_weights(config.policy, folder) if folder else None
    backbone.quantize()
    policy = make_policy(backbone, config.policy, runs_reference, settings.seed, config.needs_old, weights)
    if settings.gradient_checkpointing:
        policy.denoiser.enable_gradient_checkpointing()
    if settings.compile:
        policy.denoiser.compile()
    engine = make_engine(settings, policy, processes, compute, backbone.family.idle_weights, config.model.offload)
    backbone.freeze_encoders()  # where the denoiser is now
    return engine


def encode(config: Config, console: Console) -> int:
    """Encode the pairs of a config into its cache, as a training would first; returns the number of training pairs."""
    with join_processes() as processes, process_settings(config.train, processes.device):
        architecture = read_architecture(config.model)
        size = architecture.size(config.data.size)
        require_fit(config, architecture, size, processes.device)
        train_rows, validation_rows, _ = processes.of_main(lambda: open_rows(config, architecture, console))
        compute = config.train.compute_dtype
        backbone = load_backbone(architecture, processes.device, compute, encoders=False, size=config.data.size)
        return len(open_inputs(config, train_rows, validation_rows, backbone, processes, console).train)


def resume(checkpoint: Checkpoint, engine: Engine, updater: Updater, guard: Guard, ema: Ema | None) -> None:
    """Continue from a checkpoint."""
    counters = checkpoint.counters or {}
    engine.policy.load_state(checkpoint.weights)
    updater.load_state(checkpoint.optimizer, counters["scaler"])
    guard.load_state(counters)
    if ema and checkpoint.ema:
        ema.load_state(checkpoint.ema)


def write_record(run: RunDir, config: Config, processes: Processes, checked: dict[str, Any], start: int) -> None:
    """config.yaml, env.json and data.json, once everything that can be checked has been; no later samples."""
    run.write_config(config)
    write_atomic(run.env, json.dumps(environment(str(processes.device), processes.world), indent=2))
    write_atomic(run.data, json.dumps(checked, indent=2))
    drop_samples_after(run, start)


def micro_batches(
    pairs: PairDataset, settings: TrainConfig, start: int, processes: Processes, workers: int
) -> Iterator[PairBatch]:
    """Those of this process, for the steps after `start`."""
    sampler = MicroBatches(
        len(pairs), settings.seed, settings.batch_size, settings.gradient_accumulation,
        range(start, settings.num_steps), processes.rank, processes.world, settings.reference.precompute,
    )  # fmt: skip
    loader = DataLoader(
        pairs, batch_sampler=sampler, collate_fn=collate, num_workers=workers,  # pyright: ignore[reportArgumentType]
        pin_memory=processes.device.type == "cuda", worker_init_fn=end_with_parent,
    )  # fmt: skip
    with worker_errors():
        yield from loader


def announce(
    console: Console, config: Config, engine: Engine, objective: Objective, processes: Processes, inputs: Inputs,
    start: int,
) -> None:  # fmt: skip
    """Print what the run will do, in numbers, and beta in everybody's convention."""
    train, policy = config.train, config.policy
    num_pairs, num_validation = len(inputs.train), len(inputs.validation or ())
    trained = sum(weight.numel() for weight in engine.policy.trainable.values())
    adapters = sum(weight.numel() for name, weight in engine.policy.denoiser.named_parameters() if ".lora_" in name)
    total = num_entries(engine.policy.denoiser) - adapters
    batch = train.batch_size * train.gradient_accumulation * processes.world
    rank = f" (rank {policy.rank}, alpha {policy.alpha:g})" if policy.kind == "lora" else ""
    rows = {
        "model": f"{config.model.path}, {total / 1e6:,.1f}M parameters in the denoiser"
        + (f", its linear layers in {config.model.quantize}" if config.model.quantize else ""),
        "policy": f"{policy.kind}, {trained / 1e6:,.2f}M trained{rank}",
        "pairs": f"{num_pairs:,}" + (f", {num_validation:,} held out" if num_validation else ""),
        "batch": f"{batch} pairs = {train.batch_size} a step x {train.gradient_accumulation} steps x {processes.world} processes",
        "steps": f"{train.num_steps:,} ({train.num_steps * batch / num_pairs:.2g} passes over the pairs)"
        + (f", resumed after step {start}" if start else ""),
        "objective": repr(objective),
        "device": f"{processes.device}, mixed precision {train.mixed_precision}",
        "sharding": f"{train.sharding}, over {processes.world} processes" if processes.world > 1 else "none: there is one process",
        "run": str(Path(config.run)),
    }  # fmt: skip
    if train.sharding == "none":
        del rows["sharding"]
    if config.data.noise == "sampled":
        rows["noise"] = "of each member, what it was sampled from"
    if draws := train.reference.precompute:
        rows["reference"] = f"computed once, on {draws} draws of each pair, which come again every {draws} passes"
    if {"beta", "omega", "horizon"} <= {field.name for field in dataclasses.fields(objective)}:
        preference = cast(PreferenceObjective, objective)
        same = beta_equivalents(preference)
        rows["beta"] = " = ".join(f"{value:g} ({who})" for who, value in same.items()) if same else (
            f"{preference.beta:g} x {preference.horizon:g} steps; peers weight all timesteps alike, so none of theirs equals it"
        )  # fmt: skip
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, "bold"), Text(value))
    console.print(table)
    if start >= train.num_steps:
        console.print(Text.assemble(("complete", "green"), f": {start} steps are done; train.num_steps may grow"))
