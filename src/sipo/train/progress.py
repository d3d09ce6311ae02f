"""The live bar of a training; where no one watches (a file, a batch system), a line every half minute."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = (("loss", "loss"), ("reward_gap", "gap"), ("accuracy", "acc"), ("pruned", "pruned"), ("grad_norm", "grad"))


class TrainingProgress:
    """`with TrainingProgress(...) as progress: progress.update(step, line)`; `line` is that of metrics.jsonl."""

    def __init__(self, console: Console, start: int, num_steps: int):
        self.console, self.num_steps, self.printed = console, num_steps, time.monotonic()
        self.bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=num_steps, completed=start, numbers="")

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, step: int, line: dict[str, Any]) -> None:
        numbers = "  ".join(f"{short} {line[key]:.3g}" for key, short in SHOWN if line.get(key) is not None)
        numbers += f"  {line['seconds']['total']:.2f} s/step"
        self.bar.update(self.task, completed=step, numbers=numbers)
        if not self.console.is_terminal and (time.monotonic() - self.printed > 30 or step == self.num_steps):
            self.printed = time.monotonic()
            self.console.print(f"step {step}/{self.num_steps}  {numbers}", highlight=False)
