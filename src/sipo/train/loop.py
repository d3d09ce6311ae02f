"""The training loop: one linear function, from a config to a run directory."""

import contextlib
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from sipo.config import Config
from sipo.errors import Stopped
from sipo.files import room_in
from sipo.losses import D3PO
from sipo.run import RunDir
from sipo.train.checkpoint import Checkpoint, save_checkpoint, saved_steps
from sipo.train.d3po import take_d3po_step
from sipo.train.export import write_weights
from sipo.train.look import due, look
from sipo.train.opening import open_training
from sipo.train.step import take_step as take_pair_step
from sipo.train.table import Update
from sipo.train.training import Training

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]  # Windows has two
Step = Callable[[Training, int, bool], Update]


def train(config: Config, console: Console, take_step: Step | None = None, base_samples: Path | None = None) -> RunDir:
    """Align a model as the config says; run again, it resumes after the newest checkpoint. Returns the run directory.

    take_step: what takes an optimizer step, in the place of the objective's own. base_samples: the samples before the first
    step, as another run of the same base drew them with the same settings (they are compared); None draws them.
    Raises UserError for what the user can fix, before the first step wherever it is known by then.
    """
    take_step = take_step or (take_d3po_step if isinstance(config.loss, D3PO) else take_pair_step)
    run = RunDir(Path(config.run))
    with room_in(run.path, kept=lambda: newest(run)), StopRequest() as stop, open_training(config, console) as t:
        stop.waits = True
        if t.start == 0:
            if base_samples and t.processes.is_main:
                shutil.copytree(base_samples, run.samples_at(0), dirs_exist_ok=True)
            look(t, 0)
        for step in () if ends_early(t) else range(t.start + 1, t.settings.num_steps + 1):
            update = take_step(t, step, stop.requested)
            t.recorder.update(update)
            look(t, step)
            last = step == t.settings.num_steps or ends_early(t)
            if update.stop or due(step, t.settings.checkpoint_every, last):
                save(t, step)
            if update.stop and not last:
                raise Stopped(
                    f"stopped after step {step} as requested; a checkpoint is saved. "
                    f"The same command resumes ({t.run.path})."
                )
            if last:
                break
        with t.ema.swapped_in() if t.ema else contextlib.nullcontext():
            weights, step = t.engine.unsharded_weights(frozen=True), t.settings.num_steps
            if t.processes.is_main:
                if t.best:
                    weights, step = weights | t.best.read(), t.best.step
                    console.print(f"the best held-out score is that of step {step}: weights/ holds it", highlight=False)
                write_weights(t.engine.policy, t.backbone, config, t.run.weights, step, weights)
        t.processes.barrier()
        return t.run


def newest(run: RunDir) -> str:
    """What a full disk leaves: the newest checkpoint."""
    steps = saved_steps(run.checkpoints)
    return f"The newest whole checkpoint is that of step {steps[-1]}" if steps else "There is no checkpoint yet"


def ends_early(t: Training) -> bool:
    """Whether the held-out score has not risen for as long as `train.keep_best.patience` allows."""
    return t.best is not None and t.best.exhausted


def save(t: Training, step: int) -> None:
    """A checkpoint of everything that changes."""
    counters = {**t.guard.state(), "scaler": t.updater.scaler_state()}
    average = t.ema.average if t.ema else None
    checkpoint = Checkpoint(step, t.engine.policy.state(), t.updater.state_dict(), average, counters)
    save_checkpoint(t.run.checkpoints, checkpoint, t.settings.keep_checkpoints, t.processes)
    if t.best and t.processes.is_main:
        t.best.drop(saved_steps(t.run.checkpoints))


class StopRequest:
    """While the context lasts, SIGINT, SIGTERM or SIGHUP (a terminal that is closed) stops the training; a second one acts as usual.

    waits: the first one is a request, to be answered after a step. Until then (checks, encoding) it is answered at once.
    """

    def __init__(self) -> None:
        self.requested = self.waits = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: object) -> None:
        self.requested = True
        self._restore()
        if not self.waits:
            raise KeyboardInterrupt(
                "stopped before the first step; what is checked and encoded is kept for the next start"
            )

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
