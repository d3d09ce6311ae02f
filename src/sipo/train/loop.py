"""The training loop: one linear function, from a config to a run directory."""

import contextlib

import torch
from rich.console import Console
from torch.utils.data import DataLoader

from sipo.config import Config
from sipo.data.batches import collate, schedule_slots
from sipo.data.workers import end_with_parent
from sipo.rng import pair_generator
from sipo.run import RunDir
from sipo.terms import term_metrics
from sipo.train.announce import announce
from sipo.train.batch import Batches, batch_terms
from sipo.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, saved_steps
from sipo.train.clock import Clock
from sipo.train.export import write_weights
from sipo.train.guard import Guard, nonfinite_flags
from sipo.train.inputs import open_inputs, open_rows
from sipo.train.loggers import Loggers, require_services
from sipo.train.metrics import FallingRewards, MetricsFile, summarise
from sipo.train.optim import Ema, learning_rate
from sipo.train.progress import TrainingProgress
from sipo.train.samples import drop_samples_after, sample_prompts, write_samples
from sipo.train.setup import align_of, load_model, make_accelerator, optimizer_of, record
from sipo.train.sharded_checkpoint import save_sharded
from sipo.train.sharding import backward, clip_gradients, gather_weights, micro_step
from sipo.train.stop import StopRequest, worker_errors
from sipo.train.validate import gather_rows, pair_rows, validate
from sipo.train.zero import save_gathered, uses_zero


def train(config: Config, console: Console) -> RunDir:
    """Align a model as the config says; run again, it goes on after the newest checkpoint. Returns the run directory.

    Raises UserError for what the user can mend, before the first step wherever it can be known then.
    """
    require_services(config)
    run, accelerator = RunDir(config.run), make_accelerator(config)
    is_main = accelerator.is_main_process
    console = console if is_main else Console(quiet=True)
    with run.lock() if is_main else contextlib.nullcontext(), StopRequest() as stop:
        run.require_same_config(config, bool(saved_steps(run.checkpoints)))
        with accelerator.main_process_first():  # the others find what the first one checked
            train_rows, validation_rows, checked = open_rows(config, console)
        backbone = load_model(config, accelerator)
        align = align_of(config, accelerator, backbone)
        inputs = open_inputs(config, train_rows, validation_rows, backbone, accelerator, console)
        policy, settings, loss = align.policy, config.train, align.loss
        weights = list(policy.trainable.values())
        optimizer, with_zero = optimizer_of(align), uses_zero(config, accelerator.num_processes)
        no_one_has_all = align.sharded or with_zero
        save = save_sharded if settings.sharding == "full" else save_gathered if with_zero else save_checkpoint
        ema = Ema(policy.trainable, settings.ema_decay) if settings.ema_decay else None
        guard = Guard(settings)

        start = max(saved_steps(run.checkpoints), default=0)
        if start:
            checkpoint = load_checkpoint(run.checkpoints, start, policy.trainable)
            policy.load_state(checkpoint.weights)
            optimizer.load_state_dict(checkpoint.optimizer)
            guard.load_state(checkpoint.counters, accelerator.scaler)
            if ema:
                ema.load_state(checkpoint.ema)
        global_batch = settings.batch_size * settings.gradient_accumulation * accelerator.num_processes
        announce(console, align, run, len(inputs.train), len(inputs.validation or ()), start)
        prompts = sample_prompts(config, inputs.prompts)
        if is_main:
            record(run, config, accelerator, checked)
            drop_samples_after(run, start)
        if start >= settings.num_steps:
            console.print(f"[green]complete[/]: {start} steps are done; train.num_steps may grow")
        metrics_file = MetricsFile(run.metrics, start) if is_main else None
        loggers = Loggers(run, config, start) if is_main else None
        falling = FallingRewards()
        for line in run.read_metrics("train") if is_main else ():
            falling.update(line["step"], line)

        def log(line: dict) -> None:
            if metrics_file and loggers:
                metrics_file.write(line)
                loggers.write(line)

        def evaluate(step: int, every: int, last: bool = False) -> bool:
            return every > 0 and (step % every == 0 or last)

        def look(step: int, last: bool) -> None:
            """Validation and samples of the weights that would come out now."""
            with ema.swapped_in() if ema else contextlib.nullcontext():
                if inputs.validation and evaluate(step, settings.validate_every, last):
                    log(validate(align, inputs.validation, step))
                if (is_main or align.sharded) and evaluate(step, settings.sample_every, last):
                    write_samples(run, config, backbone, prompts, step, keep=is_main)
            accelerator.wait_for_everyone()

        if start == 0:
            look(0, last=False)

        batches = Batches(
            lambda step: schedule_slots(len(inputs.train), settings.seed, step - 1, global_batch),
            start + 1, settings.num_steps, settings.batch_size, accelerator.process_index, accelerator.num_processes,
        )  # fmt: skip
        loader = iter(DataLoader(
            inputs.train, batch_sampler=batches, collate_fn=collate, num_workers=config.data.workers,
            pin_memory=accelerator.device.type == "cuda", worker_init_fn=end_with_parent,
        ))  # fmt: skip
        clock = Clock(accelerator.device)
        with TrainingProgress(console, start, settings.num_steps) as progress:
            for step in range(start + 1, settings.num_steps + 1):
                clock.restart()
                rows, ids = [], {}
                # For dropout inside the network, where a model has any.
                torch.manual_seed(pair_generator(settings.seed, step, accelerator.process_index, "net").initial_seed())
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(settings, step)
                for number in range(settings.gradient_accumulation):
                    with worker_errors():
                        batch = next(loader)
                    ids.update(zip(batch.slots.tolist(), batch.ids, strict=True))
                    is_last = number == settings.gradient_accumulation - 1
                    with micro_step(align.model, accelerator, is_last, keep_whole=config.policy.kind == "lora"):
                        terms = batch_terms(align, batch, step, global_batch, clock)
                        losses, metrics = loss(terms)  # (B,), metrics (B,) each
                        # Over ALL pairs of the global batch; every engine averages over processes, hence their number.
                        share = losses.sum() * (accelerator.num_processes / global_batch)
                        backward(share, optimizer, accelerator, is_last)
                    seen = [] if no_one_has_all else weights  # those whose gradients are here by now
                    flags = nonfinite_flags(losses, seen, accelerator.scaler is not None)
                    columns = {"loss": losses, **metrics, **term_metrics(terms), "nonfinite": flags}
                    rows.append(pair_rows(columns, terms.t, batch.slots))
                    clock.mark("policy")
                grad_norm = clip_gradients(weights, settings.max_grad_norm, optimizer, accelerator)
                for row in rows:
                    row["grad_norm"] = torch.as_tensor(grad_norm).to(row["loss"]).expand_as(row["loss"])
                    row["stop"] = torch.full_like(row["loss"], float(stop.requested))
                names, table = gather_rows(align, rows)
                pairs = {name: table[:, i] for i, name in enumerate(names)}
                if guard.allows(step, pairs, ids, accelerator):
                    optimizer.step()
                    if ema:
                        ema.update()
                optimizer.zero_grad(set_to_none=True)
                clock.mark("other")
                stopping = bool(pairs.pop("stop").any())
                line = summarise({n: v for n, v in pairs.items() if n not in ("nonfinite", "slot", "grad_norm")},
                                 backbone.schedule.num_train_timesteps)  # fmt: skip
                line = {"kind": "train", "step": step, "learning_rate": learning_rate(settings, step),
                        "grad_norm": guard.grad_norm, **guard.counts(), **line, "seconds": clock.read()}  # fmt: skip
                log(line)
                if warning := falling.update(step, line):
                    log({"kind": "warning", "step": step, "message": warning})
                    console.print(f"[yellow]step {step}: {warning}[/]")
                progress.update(step, line)
                last = step == settings.num_steps
                look(step, last)
                if (is_main or no_one_has_all) and (last or stopping or step % settings.checkpoint_every == 0):
                    save(run.checkpoints, Checkpoint(
                        step, policy.state(), optimizer.state_dict(), ema.average if ema else None,
                        guard.state(accelerator.scaler),
                    ), settings.keep_checkpoints)  # fmt: skip
                if stopping and not last:
                    stop.finish(run, step)
        with ema.swapped_in() if ema else contextlib.nullcontext():
            whole = gather_weights(policy, keep=is_main)
            if is_main:
                loggers.close()
                write_weights(policy, backbone, config, run.weights, settings.num_steps, whole)
        accelerator.wait_for_everyone()
        accelerator.end_training()
        return run
