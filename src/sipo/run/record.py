"""What a run directory records, as plain values: for reports, and for studies of many runs."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sipo.errors import UserError, shown
from sipo.files import open_regular
from sipo.jsonl import iter_jsonl, parse_line, read_object
from sipo.run.directory import RunDir

SECTIONS = ("model", "data", "loss", "policy", "kernel", "timesteps", "train", "sample", "log")


@dataclass(frozen=True)
class Lines:
    """Lines of a file that stay there: each is read when it is asked for. starts: where they begin."""

    path: Path
    starts: array

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.starts:
            return
        with open_regular(self.path) as file:
            for start in self.starts:
                file.seek(start)
                yield parse_line(file.readline(), f"{self.path}, which changed while it was read")

    def __getitem__(self, index: int) -> dict[str, Any]:
        return next(iter(Lines(self.path, self.starts[index : index + 1 or None])))


@dataclass(frozen=True)
class RunRecord:
    """Config, metrics by kind, environment and data check of a run; a missing file is None or empty."""

    config: dict[str, Any]
    train: Lines  # of metrics.jsonl, in order
    validation: list[dict[str, Any]]
    scores: list[dict[str, Any]]  # of held-out samples, by train.keep_best
    warnings: list[dict[str, Any]]
    env: dict[str, Any] | None
    data: dict[str, Any] | None

    @property
    def last_step(self) -> int:
        return self.train[-1]["step"] if self.train else 0

    @property
    def num_steps(self) -> int:
        """The steps that the config asks for, or those taken if there are more."""
        return max((self.config.get("train") or {}).get("num_steps", 0), self.last_step)


def read_run(run: RunDir) -> RunRecord:
    """Read everything but samples and evaluations. Raises `UserError` if the folder is no run or a file is damaged."""
    run.require()
    starts, start, few = array("q"), 0, {"validation": [], "score": [], "warning": []}
    for number, (end, line) in enumerate(iter_jsonl(run.metrics) if run.metrics.exists() else (), start=1):
        if fault := _fault(line):
            raise UserError(f"{run.metrics}, line {number}: {fault}.")
        if (kind := line.get("kind")) == "train":
            starts.append(start)
        elif kind in few:
            few[kind].append(line)
        start = end
    env, data = (read_object(file) if file.exists() else None for file in (run.env, run.data))
    train = Lines(run.metrics, starts)
    return RunRecord(_sections(run), train, few["validation"], few["score"], few["warning"], env, data)


TEXTS = ("kind", "message", "scorer", "reason")  # of a line; "bins" and "seconds" are objects, all else is numbers


def _fault(line: dict[str, Any]) -> str | None:
    """Why a line of metrics.jsonl is none, or None."""
    for key, value in line.items():
        kind: Any = str if key in TEXTS else dict if key in ("bins", "seconds") else int | float | None
        if not isinstance(value, kind):
            return f"{key} is {shown(value, 60)}"
    return None if isinstance(line.get("step"), int) else "it has no whole number under step"


def _sections(run: RunDir) -> dict[str, Any]:
    """The run's config. Raises UserError for a section that is a value."""
    found = run.read_config()
    for key in SECTIONS:
        if not isinstance(found.get(key), dict | None):
            raise UserError(f"{run.config}: {key} is {shown(found[key], 60)}; expected a mapping")
    return found


def best_score(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The line with the highest held-out score, the earliest of equal ones; None without any."""
    return dict(max(scores, key=lambda line: (line["score"], -line["step"]))) if scores else None


def best_validation(validation: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The validation with the lowest held-out loss, the earliest of equal ones; None without any.

    A pruned pair counts as zero in the loss, so the loss is taken per pair kept: pruning more must not look better.
    """
    kept = [
        (line["loss"] / (1 - line.get("pruned", 0.0)), line["step"], line)
        for line in validation
        if line.get("loss") is not None and line.get("pruned", 0.0) < 1
    ]
    return dict(min(kept, key=lambda item: item[:2])[2]) if kept else None


def seconds_per_step(train: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The median over steps of the total and of each part that all steps record; empty if no step was timed."""
    timed = [line["seconds"] for line in train if line.get("seconds")]
    parts = [part for part in timed[0] if all(part in seconds for seconds in timed)] if timed else []
    return {part: median(seconds[part] for seconds in timed) for part in parts}
