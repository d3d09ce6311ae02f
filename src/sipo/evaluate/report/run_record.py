"""What a run directory says, gathered for its report; whatever is missing is None or empty."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sipo.errors import UserError
from sipo.evaluate.compare.files import read_comparison
from sipo.evaluate.compare.sides import scorer_of
from sipo.evaluate.scores.score import read_scores
from sipo.evaluate.scores.table import Scored
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, Sample, read_samples

PARTS = ("policy", "reference", "data", "other")


@dataclass(frozen=True)
class Record:
    """A run's files as plain values."""

    config: dict
    train: list[dict]  # lines of metrics.jsonl by kind
    validation: list[dict]
    warnings: list[dict]
    env: dict | None
    data: dict | None
    evaluations: dict[str, dict]  # name -> comparison.json, the largest first
    scores: list[Scored]  # every scores.NAME.jsonl in the run: of its samples step by step, then of its evaluations

    @property
    def last_step(self) -> int:
        return self.train[-1]["step"] if self.train else 0


def read_record(run: RunDir) -> Record:
    """Read everything but the pictures. `UserError` where the folder is no run or a file of it is damaged."""
    metrics = run.require().read_metrics()
    kinds = {
        kind: [line for line in metrics if line.get("kind") == kind] for kind in ("train", "validation", "warning")
    }
    folders = sorted(path for path in run.evaluation.iterdir()) if run.evaluation.is_dir() else []
    found = {folder.name: record for folder in folders if (record := read_comparison(folder))}
    ranked = sorted(found.items(), key=lambda item: -item[1]["overall"]["num_pairs"])
    return Record(
        run.read_config() or {}, kinds["train"], kinds["validation"], kinds["warning"],
        _read_json(run.env), _read_json(run.data), dict(ranked), read_all_scores(run),
    )  # fmt: skip


def read_all_scores(run: RunDir) -> list[Scored]:
    """What scorers said of the media in a run; files of scores that do not lie beside their media are passed over."""
    files = [*sorted(run.samples.glob("*/scores.*.jsonl")), *sorted(run.evaluation.rglob("scores.*.jsonl"))]
    found = [(file, scorer_of(file)) for file in files if (file.parent / SAMPLES).is_file()]
    return [Scored(file.parent, scorer, read_scores(file.parent, scorer), file) for file, scorer in found]


def score_curves(run: RunDir, scores: Sequence[Scored]) -> dict[str, list[dict]]:
    """By scorer, {"step", "score"} of the samples' mean at every step that was scored; only scorers of several steps."""
    found: dict[str, list[dict]] = {}
    for each in scores:
        if each.folder.parent == run.samples and each.folder.name.isdigit() and each.mean:
            found.setdefault(each.scorer, []).append({"step": int(each.folder.name), "score": each.mean.value})
    return {scorer: lines for scorer, lines in found.items() if len(lines) > 1}


def best_validation(validation: Sequence[Mapping]) -> dict | None:
    """The validation with the lowest held-out loss, the earliest where several tie; None without one.

    A pruned pair counts as zero in the loss, so the loss is taken per pair kept: pruning more must not look better.
    """
    kept = [(line["loss"] / (1 - line.get("pruned", 0.0)), line) for line in validation
            if line.get("loss") is not None and line.get("pruned", 0.0) < 1]  # fmt: skip
    return dict(min(kept, key=lambda item: (item[0], item[1]["step"]))[1]) if kept else None


def seconds_per_step(train: Sequence[Mapping]) -> dict[str, float] | None:
    """The median over steps of each part and of the total; None where nothing was timed."""
    timed = [line["seconds"] for line in train if line.get("seconds")]
    if not timed:
        return None
    return {part: median([t[part] for t in timed]) for part in ("total", *PARTS) if all(part in t for t in timed)}


def sample_strip(
    run: RunDir, num_steps: int = 7, num_samples: int = 8
) -> tuple[list[int], list[tuple[Sample, list[Path]]]]:
    """Steps, and for every prompt and seed that all of them have, its pictures in the order of the steps."""
    folders = {
        int(path.parent.name): path.parent for path in run.samples.glob(f"*/{SAMPLES}") if path.parent.name.isdigit()
    }
    steps = spread(sorted(folders), num_steps)
    folders = [folders[step] for step in steps]
    tables = [{(s.prompt, s.seed): s for s in read_samples(folder)} for folder in folders]
    if not tables:
        return [], []
    shared = [key for key in tables[0] if all(key in table for table in tables)][:num_samples]
    rows = [
        (tables[0][key], [folder / t[key].file for folder, t in zip(folders, tables, strict=True)]) for key in shared
    ]
    return steps, rows


def spread(items: Sequence, count: int) -> list:
    """At most `count` of the items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _read_json(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
