"""What the runs of a study scored, step by step, and the mean and interval of it over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from sipo.errors import UsageError
from sipo.evaluate.scores.files import Score, read_scores
from sipo.rounds.report import read_records, round_folder
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES
from sipo.studies.grid import Cell, Study

TRAINING = (
    "loss",
    "accuracy",
    "mse_policy_chosen",
    "mse_reference_chosen",
    "mse_policy_rejected",
    "pruned",
    "clipped",
    "capped",
    "gain_capped",
)


@dataclass(frozen=True)
class Row:
    """One run at one step, or after one round: means over its samples, and over the training steps since the last one.

    Or, in a study over timesteps, at the left edge of a bin: means over all its training steps.
    """

    labels: dict[str, str]
    seed: int
    at: int
    values: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Mean over seeds, with the 95% interval of Student's t (NaN for a single seed)."""

    mean: float
    low: float
    high: float
    count: int


def rows_of(study: Study, cell: Cell, scorer: str) -> list[Row]:
    """A row a moment, from the scores by `scorer`. The value "score" is the scorer's; any other name is one of its details."""
    if study.x == "timestep":
        return rows_by_timestep(study, cell)
    if study.x == "round":
        return rows_by_round(study, cell, scorer)
    run, rows, before = RunDir(cell.path), [], 0
    lines = [
        {name: line[name] for name in ("step", *TRAINING) if name in line}
        for line in run.iter_metrics()
        if line["kind"] == "train"
    ]
    for step in run.sample_steps():
        values = _values(study, read_scores(run.samples_at(step), scorer))
        values |= _of_training([line for line in lines if before < line["step"] <= step])
        rows.append(Row(dict(cell.labels), cell.seed, step, values))
        before = step
    return rows


def rows_by_timestep(study: Study, cell: Cell) -> list[Row]:
    """A row a timestep bin with pairs in it: the means of the run's metrics over all its steps."""
    bins = [line["bins"] for line in RunDir(cell.path).read_metrics("train")]
    rows = []
    for index, left in enumerate(bins[0]["edges"][:-1]):
        values = {}
        for name in study.measure.values:
            if name not in bins[0]:
                known = ", ".join(bins[0].keys() - {"edges", "count"})
                raise UsageError(f"study {study.name}: {name} is not a metric by timestep of its runs; known: {known}")
            pairs = [(each[name][index], each["count"][index]) for each in bins if each[name][index] is not None]
            total = sum(count for _, count in pairs)
            values[name] = sum(value * count for value, count in pairs) / total if total else math.nan
        rows.append(Row(dict(cell.labels), cell.seed, round(left), values))
    return [row for row in rows if not all(math.isnan(value) for value in row.values.values())]


def rows_by_round(study: Study, cell: Cell, scorer: str) -> list[Row]:
    """A row a round: the means over the held-out samples after it, and over the steps of its training."""
    rows = []
    for number in range(len(read_records(cell.path))):
        folder = round_folder(cell.path, number)
        parts = sorted(part.parent for part in (folder / "held-out").glob(f"*/{SAMPLES}"))
        values = _values(study, [score for part in parts for score in read_scores(part, scorer)])
        values |= _of_training(RunDir(folder / "run").read_metrics("train") if number else [])
        rows.append(Row(dict(cell.labels), cell.seed, number, values))
    return rows


def _of_training(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over some steps of a training, of the metrics that they have."""
    found = {name: [line[name] for line in lines if line.get(name) is not None] for name in TRAINING}
    return {name: mean(values) for name, values in found.items() if values}


def _values(study: Study, scores: Sequence[Score]) -> dict[str, float]:
    """Means over all samples and, where the study has categories, over those of each."""
    values = _means(scores, study.measure.values)
    if study.measure.categories:
        tags = [_tag(study, score) for score in scores]
        for tag in dict.fromkeys(tags):
            mine = [score for score, its in zip(scores, tags, strict=True) if its == tag]
            values |= {f"{name} {tag}": value for name, value in _means(mine, study.measure.values).items()}
    return values


def _tag(study: Study, score: Score) -> str:
    tag = (score.sample.metadata or {}).get("tag")
    if tag is None:
        raise UsageError(f"study {study.name}: categories need prompts with a tag; {score.sample.prompt!r} has none")
    return tag


def _means(scores: Sequence[Score], names: Sequence[str]) -> dict[str, float]:
    return {name: mean(float(s.value if name == "score" else s.details[name]) for s in scores) for name in names}


def measured(study: Study, rows: Sequence[Row]) -> list[str]:
    """The values that the study shows: those it names, and where it has categories, theirs."""
    tagged = [f"{name} " for name in study.measure.values if study.measure.categories]
    return [name for name in rows[0].values if name in study.measure.values or name.startswith(tuple(tagged))]


def summarise(values: Sequence[float]) -> Summary:
    """Mean and interval; values that are not there (NaN) count for neither."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return Summary(math.nan, math.nan, math.nan, 0)
    center = mean(values)
    if len(values) == 1:
        return Summary(center, math.nan, math.nan, 1)
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Summary(center, center - half, center + half, len(values))


def at_ends(rows: Sequence[Row]) -> list[Row]:
    """Of every run the last row."""
    ends = {(tuple(row.labels.values()), row.seed): row for row in sorted(rows, key=lambda row: row.at)}
    return list(ends.values())


def over_seeds(rows: Sequence[Row], name: str) -> dict[tuple[tuple[str, ...], int], Summary]:
    """(labels, step) -> summary of one value."""
    groups: dict[tuple[tuple[str, ...], int], list[float]] = {}
    for row in rows:
        groups.setdefault((tuple(row.labels.values()), row.at), []).append(row.values.get(name, math.nan))
    return {key: summarise(values) for key, values in groups.items()}
