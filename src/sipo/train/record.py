"""What a training leaves and shows while it runs: metrics.jsonl, its views, a progress bar, warnings, seconds by part."""

import json
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sipo.config import Config
from sipo.files import append, write_atomic
from sipo.jsonl import iter_jsonl
from sipo.run import RunDir
from sipo.train.idle import Idle
from sipo.train.loggers import Loggers
from sipo.train.table import Update

PARTS = ("data", "reference", "policy", "other")
SHOWN = (("loss", "loss"), ("reward_gap", "gap"), ("accuracy", "acc"), ("pruned", "pruned"), ("grad_norm", "grad"))
MATERIAL = 0.1  # implicit rewards are logits: a fall by less moves no preference


class Recorder:
    """Writes metrics.jsonl and its views, shows the progress, warns. On resume after `start`, later lines are cut.

    As a context: the progress bar is live inside; the views are closed where no error ends it.
    """

    def __init__(self, run: RunDir, config: Config, num_train_timesteps: int, start: int, console: Console):
        self.num_train_timesteps, self.console = num_train_timesteps, console
        self.falling, self.idle = FallingRewards(), Idle()
        self.file = MetricsFile(run.metrics, start, self._remember)
        self.loggers = Loggers(run, config, start)
        self.progress = TrainingProgress(console, start, config.train.num_steps)

    def _remember(self, line: dict[str, Any]) -> None:
        if line.get("kind") == "train":
            self.falling.update(line["step"], line)

    def __enter__(self) -> "Recorder":
        self.progress.bar.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.progress.bar.stop()
        if error is None:
            self.loggers.close()

    def write(self, line: dict[str, Any]) -> None:
        """Append a line as it is."""
        self.file.write(line)
        self.loggers.write(line)

    def update(self, update: Update) -> None:
        """Append the line of a step."""
        line = update.line(self.num_train_timesteps)
        self.write(line)
        falling, idle = self.falling.update(update.step, line), self.idle.update(update.pairs, update.grad_norm)
        for warning in filter(None, (falling, idle)):
            self.write({"kind": "warning", "step": update.step, "message": warning})
            self.console.print(f"step {update.step}: {warning}", style="yellow", soft_wrap=not self.console.is_terminal)
        self.progress.update(update.step, line)


class NoRecorder:
    """The recorder of all processes but the first."""

    def __enter__(self) -> "NoRecorder":
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, line: dict[str, Any]) -> None: ...

    def update(self, update: Update) -> None: ...


class MetricsFile:
    """metrics.jsonl, appended line by line; on resume the lines after the restored step are cut (all, at step 0).

    see: what is called with every line that stays.
    """

    def __init__(self, path: Path, step: int, see: Callable[[dict[str, Any]], object] = bool):
        self.path = path
        if step == 0 or not path.is_file():
            write_atomic(path, "")
            return
        kept = 0
        for end, line in iter_jsonl(path):
            if line["step"] > step:
                break
            see(line)
            kept = end
        with path.open("rb+") as file:
            file.truncate(kept)
            os.fsync(file.fileno())

    def write(self, line: dict[str, Any]) -> None:
        append(self.path, (json.dumps(line) + "\n").encode(), sync=False)


class FallingRewards:
    """Warns when the implicit rewards of chosen and rejected fall together, the signature of a collapse.

    The gap may still grow: the policy gets worse on both members, and worse faster on the rejected one.
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


class TrainingProgress:
    """A live bar; where the console is a file or a batch system, a line every half minute."""

    def __init__(self, console: Console, start: int, num_steps: int):
        self.console, self.num_steps, self.printed = console, num_steps, time.monotonic()
        self.bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=num_steps, completed=start, numbers="")

    def update(self, step: int, line: dict[str, Any]) -> None:
        numbers = "  ".join(f"{short} {line[key]:.3g}" for key, short in SHOWN if line.get(key) is not None)
        numbers += f"  {line['seconds']['total']:.2f} s/step"
        self.bar.update(self.task, completed=step, numbers=numbers)
        if not self.console.is_terminal and (time.monotonic() - self.printed > 30 or step == self.num_steps):
            self.printed = time.monotonic()
            self.console.print(f"step {step}/{self.num_steps}  {numbers}", highlight=False, soft_wrap=True)


class Clock:
    """Seconds of a step, split by part, without making the device wait: `mark(part)` charges the time since the last mark.

    On CUDA the marks are events on the stream, read once a step by `read()`, so a part is the device's time, not
    the time that Python took to launch it.
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.restart()

    def restart(self) -> None:
        """Begin a step; the time before it is not charged."""
        self.marks: list[tuple[str, Any]] = [("start", self._now())]  # seconds, or events on the stream

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def mark(self, part: str) -> None:
        self.marks.append((part, self._now()))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last read, with their total. Waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float, dict.fromkeys(PARTS, 0.0))
        for (_, before), (part, after) in zip(self.marks, self.marks[1:], strict=False):
            seconds[part] += before.elapsed_time(after) / 1000 if self.cuda else after - before
        self.restart()
        return {"total": sum(seconds.values()), **seconds}
