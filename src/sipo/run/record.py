"""What a run directory records, as plain values: for reports, and for studies of many runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sipo.jsonl import read_json
from sipo.run.directory import RunDir


@dataclass(frozen=True)
class RunRecord:
    """Config, metrics by kind, environment and data check of a run; a missing file is None or empty."""

    config: dict[str, Any]
    train: list[dict[str, Any]]  # lines of metrics.jsonl, in order
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
    metrics = run.require().read_metrics()
    train, validation, scores, warnings = (
        [line for line in metrics if line.get("kind") == kind] for kind in ("train", "validation", "score", "warning")
    )
    env, data = read_json(run.env), read_json(run.data)
    return RunRecord(run.read_config() or {}, train, validation, scores, warnings, env, data)


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


def seconds_per_step(train: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median over steps of the total and of each part that all steps record; empty if no step was timed."""
    timed = [line["seconds"] for line in train if line.get("seconds")]
    parts = [part for part in timed[0] if all(part in seconds for seconds in timed)] if timed else []
    return {part: median(seconds[part] for seconds in timed) for part in parts}
