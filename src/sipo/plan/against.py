"""Two configs, a step of each in turn: how much longer one takes than the other, with an interval."""

import math
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipo.config import Config, parse_config
from sipo.errors import UsageError
from sipo.losses import D3PO
from sipo.plan.benchmark import UNDISTURBED, WARM_UP, medians
from sipo.train.d3po import take_d3po_step
from sipo.train.opening import open_training
from sipo.train.record import PARTS
from sipo.train.step import take_step

CONFIDENCE = 0.95
OF_THE_PROCESS = ("num_threads", "deterministic")  # settings of `train` that two trainings in one process share


@dataclass(frozen=True)
class Contest:
    """Seconds of each counted step by part, of the first and the second config; steps of one number were neighbours in time."""

    first: list[dict[str, float]]
    second: list[dict[str, float]]

    @property
    def ratios(self) -> list[float]:
        """Of the second's time to the first's, step by step: what slows the machine down slows both."""
        return [b["total"] / a["total"] for a, b in zip(self.first, self.second, strict=True)]


def compete(first: dict[str, Any], second: dict[str, Any], num_steps: int, console: Console) -> Contest:
    """Open both configs and take `num_steps` counted steps of each in turn; who begins changes from step to step.

    The configs are as YAML gives them; their runs are temporary, their caches are used or made. Both models are in memory
    at once. Raises UsageError where they differ in what holds for the whole process.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        configs = [_timed(raw, Path(folder) / str(number), num_steps) for number, raw in enumerate((first, second))]
        if other := [key for key in OF_THE_PROCESS if len({getattr(config.train, key) for config in configs}) > 1]:
            raise UsageError(f"--against: train.{other[0]} differs, and holds for a whole process; set it to one value")
        quiet = Console(quiet=True)
        with console.status("opening both"):
            sides = [
                (stack.enter_context(open_training(config, quiet)),
                 take_d3po_step if isinstance(config.loss, D3PO) else take_step)
                for config in configs
            ]  # fmt: skip
        found: list[list[dict[str, float]]] = [[], []]
        for step in range(1, num_steps + WARM_UP + 1):
            with console.status(Text(f"step {step} of {num_steps + WARM_UP}, of each")):
                for number in (0, 1) if step % 2 else (1, 0):
                    training, take = sides[number]
                    found[number].append(take(training, step, False).seconds)
    return Contest(found[0][WARM_UP:], found[1][WARM_UP:])


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Between order statistics, whatever the distribution: the narrowest symmetric pair of ranks that covers the median
    with this probability, by the sign test. All values where they are too few for that (5 or fewer at 95%)."""
    ordered, n = sorted(values), len(values)
    below, rank = 2**-n, 0  # P(fewer than rank + 1 values below the median)
    while rank + 1 < n / 2 and 2 * (below + math.comb(n, rank + 1) / 2**n) <= 1 - confidence:
        rank += 1
        below += math.comb(n, rank) / 2**n
    return ordered[rank], ordered[n - 1 - rank]


def render(contest: Contest, names: tuple[str, str], console: Console) -> None:
    """Both medians by part, and the ratio."""
    table = Table(title="seconds per optimizer step (medians)", title_justify="left")
    for column in ("", "total", *PARTS):
        table.add_column(column, justify="left" if not column else "right")
    for name, steps in zip(names, (contest.first, contest.second), strict=True):
        seconds = medians(steps)
        table.add_row(Text(name), *(f"{seconds[part]:.4f}" for part in ("total", *PARTS)))
    console.print(table)
    low, high = median_interval(contest.ratios)
    console.print(
        f"{names[1]} takes {statistics.median(contest.ratios):.3f} of the time of {names[0]} (95% interval {low:.3f} to "
        f"{high:.3f}; {len(contest.ratios)} steps of each in turn)",
        highlight=False,
        soft_wrap=True,
    )


def _timed(raw: dict[str, Any], run: Path, num_steps: int) -> Config:
    settings = {**(raw.get("train") or {}), **UNDISTURBED, "num_steps": num_steps + WARM_UP, "keep_best": None}
    return parse_config({
        **raw, "run": str(run), "train": settings, "data": {**raw["data"], "validation": None},
        "log": {"tensorboard": False},
    })  # fmt: skip
