"""What a report shows: the run's record as tables, its comparisons, its scores, its samples over training."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sipo.evaluate.compare.files import read_comparison
from sipo.evaluate.scores.files import read_scores, scorer_of
from sipo.evaluate.scores.table import Scored
from sipo.run import RunDir, RunRecord
from sipo.samples.folder import SAMPLES, Sample, read_samples
from sipo.scorers.frames import evenly_spaced

LONG_LIST = 12  # entries that a table shows


def read_evaluations(run: RunDir) -> dict[str, dict]:
    """The records of the run's comparisons (see `contest_record`) by name, the largest first."""
    folders = sorted(run.evaluation.iterdir()) if run.evaluation.is_dir() else []
    found = {folder.name: comparison for folder in folders if (comparison := read_comparison(folder))}
    return dict(sorted(found.items(), key=lambda item: -item[1]["comparisons"][0]["overall"]["num_pairs"]))


def all_comparisons(evaluations: Mapping[str, dict]) -> list[tuple[str, dict]]:
    """(evaluation's name, comparison) of all, also where an evaluation holds several."""
    return [(name, each) for name, record in evaluations.items() for each in record["comparisons"]]


def read_all_scores(run: RunDir) -> list[Scored]:
    """The scores of a run's samples, step by step, then of its evaluations; files elsewhere than beside media are skipped."""
    files = [*sorted(run.samples.glob("*/scores.*.jsonl")), *sorted(run.evaluation.rglob("scores.*.jsonl"))]
    found = [(file, scorer_of(file)) for file in files if (file.parent / SAMPLES).is_file()]
    return [Scored(file.parent, scorer, read_scores(file.parent, scorer), file) for file, scorer in found]


def score_curves(run: RunDir, scores: Sequence[Scored]) -> dict[str, list[dict]]:
    """By scorer, {"step", "score"} of the samples' mean at every scored step; only scorers of several steps."""
    found: dict[str, list[dict]] = {}
    for each in scores:
        if each.folder.parent == run.samples and each.folder.name.isdigit() and each.mean:
            found.setdefault(each.scorer, []).append({"step": int(each.folder.name), "score": each.mean.value})
    return {scorer: lines for scorer, lines in found.items() if len(lines) > 1}


def sample_strip(
    run: RunDir, num_steps: int = 7, num_samples: int = 8
) -> tuple[list[int], list[tuple[Sample, list[Path]]]]:
    """Steps, and for every prompt and seed that all of them have, its pictures in the order of the steps."""
    folders = {
        int(path.parent.name): path.parent for path in run.samples.glob(f"*/{SAMPLES}") if path.parent.name.isdigit()
    }
    if not folders:
        return [], []
    known = sorted(folders)
    steps = [known[place] for place in evenly_spaced(len(known), num_steps)]
    tables = [(folders[step], {(s.prompt, s.seed): s for s in read_samples(folders[step])}) for step in steps]
    first = tables[0][1]
    shared = [key for key in first if all(key in table for _, table in tables)][:num_samples]
    return steps, [(first[key], [folder / table[key].file for folder, table in tables]) for key in shared]


def tables(record: RunRecord) -> list[tuple[str, list]]:
    """(title, groups) of the settings, the data check and the environment, as far as they exist."""
    found = (("Settings", record.config), ("Data", record.data and _data(record.data)), ("Environment", record.env))
    return [(title, _groups(content)) for title, content in found if content]


def _data(report: Mapping) -> dict:
    """A data check for reading: only the kinds of problems that occur, and the first rows that have one."""
    shown = dict(report)
    shown["counts"] = {kind: count for kind, count in (report.get("counts") or {}).items() if count}
    problems = report.get("problems") or []
    shown["problems"] = {p["row"]: f"{p['kind']}: {p['detail']}" for p in problems[:LONG_LIST]}
    if len(problems) > LONG_LIST:
        shown["problems"]["…"] = f"{len(problems) - LONG_LIST:,} more in data.json"
    return shown


def _groups(content: Mapping) -> list[tuple[str, list[tuple[str, str]]]]:
    """(name, rows): plain keys first, under no name, then a group for every key that holds a mapping."""
    plain = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    nested = [(str(key), list(_rows(value))) for key, value in content.items() if isinstance(value, Mapping) and value]
    return [("", list(_rows(plain))), *nested] if plain else nested


def _rows(content: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key.path, text) of every leaf; long lists are shortened."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        more = f" … ({len(value):,} in all)" if len(value) > LONG_LIST else ""
        return (", ".join(map(_text, value[:LONG_LIST])) or "none") + more
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return str(value)
