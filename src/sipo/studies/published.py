"""What a study has: results of runs that are done here, and of those in its CSV, made before or on another machine."""

import csv
import dataclasses
import io
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sipo import registry
from sipo.errors import UserError
from sipo.files import digest, hash_files, read_text
from sipo.jsonl import read_json
from sipo.rounds.config import OnlineConfig, prompts_of
from sipo.samples.prompts import read_prompts
from sipo.scorers.choice import load_scorer
from sipo.studies.grid import Cell, Study
from sipo.studies.results import Row, rows_of
from sipo.studies.running import DONE, is_done
from sipo.tables import csv_table, csv_text

OF_RUN = ("seed", "settings", "seconds")  # columns of the CSV beside the axes, the moment and the values


@dataclass(frozen=True)
class Result:
    """Of one run: its rows, the fingerprint of its settings, and how long it took."""

    cell: Cell
    rows: list[Row]
    settings: str
    seconds: float


def gather(study: Study, cells: Iterable[Cell], table: Path) -> list[Result]:
    """The results that there are, in the order of the cells: from the run directories, else from the CSV `table`, or from one
    beside it: two studies whose grids have a run in common share it, whatever each calls it."""
    published = read_csv(study, table)
    for other in sorted({*table.parent.glob("*.csv")} - {table}):
        with suppress(UserError):  # whatever else lies there
            published = read_csv(study, other) | published
    found = []
    content, scorer = cache(content_of), cache(load_scorer)  # read and loaded once for all cells
    for cell in cells:
        settings = fingerprint(study, cell, content)
        if is_done(study, cell):
            name = scorer(study.measure.scorer).name  # of its files, where it was named as module:attribute
            seconds = read_json(cell.path / DONE)["seconds"]
            found.append(Result(cell, rows_of(study, cell, name), settings, seconds))
        elif lines := published.get(settings):
            found.append(Result(cell, _rows(cell, lines), settings, lines[0].seconds))
    return found


def content_of(path: str, kind: Literal["model", "data"]) -> str:
    """The hash of the weights or of the file of pairs at `path`, or of a miniature's; "" for what is no local file."""
    miniature = registry.miniature(path)
    place = Path(path) if miniature is None else miniature.weights if kind == "model" else miniature.pairs
    files = [place] if place.is_file() else sorted(place.rglob("*.safetensors" if kind == "model" else "*.parquet"))
    return hash_files(files) if files else ""


def fingerprint(study: Study, cell: Cell, content_of: Callable[[str, Any], str] = content_of) -> str:
    """12 hexadecimal digits of what a run's rows depend on: settings, weights, pairs, prompts, measure; not of where they lie.

    Settings at their defaults do not count, so that a key which a later version adds changes nothing.
    """
    config, measure = cell.training, study.measure
    content = {"model": content_of(config.model.path, "model"), "data": content_of(config.data.path, "data")}
    places = {
        "model": {"path"} if content["model"] else set(),
        "data": {"cache", "workers"} | ({"path"} if content["data"] else set()),
    }
    sections = vars(config)
    if isinstance(cell.config, OnlineConfig):
        rounds = cell.config.rounds
        sections, places["rounds"] = {**sections, "rounds": rounds}, {"prompts", "held_out"}
        content["rounds"] = digest([item.prompt for item in prompts_of(rounds)])
    settings = {
        key: [type(section).__name__, _chosen(section, places.get(key, set()))]
        for key, section in sections.items()
        if dataclasses.is_dataclass(section)
    }
    prompts = [item.prompt for item in read_prompts(measure.prompts, measure.num_prompts)]
    shown = [measure.scorer, measure.values, measure.categories]
    return digest([settings, config.num_inference_steps, content, prompts, shown])[:12]


def _chosen(section: Any, without: Collection[str]) -> dict[str, Any]:
    """The fields of a section that are not at their defaults, as JSON values."""
    plain = dataclasses.asdict(section)
    return {
        each.name: plain[each.name]
        for each in dataclasses.fields(section)
        if each.name not in without and getattr(section, each.name) != _default(each)
    }


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def as_csv(study: Study, results: Sequence[Result]) -> str:
    """A line a run and moment."""
    names = list(dict.fromkeys(name for result in results for row in result.rows for name in row.values))
    lines = [
        [*row.labels.values(), row.seed, result.settings, round(result.seconds), row.at]
        + [f"{row.values[name]:.6g}" if name in row.values else None for name in names]
        for result in results
        for row in result.rows
    ]
    return csv_table([*study.axes, *OF_RUN, study.moment, *names], lines)


@dataclass(frozen=True)
class Line:
    """Of a table: a run at one moment, and how long the run took."""

    at: int
    values: dict[str, float]
    seconds: float


def read_csv(study: Study, table: Path) -> dict[str, list[Line]]:
    """The lines of every run in a table that `as_csv` wrote, by its settings; none where the runs' moments are others.

    Cells of equal settings are one run, whose lines the table has under each cell's labels: a moment counts once.
    Raises UserError for what is no such table.
    """
    if not os.path.lexists(table):
        return {}
    try:
        reader = csv.reader(io.StringIO(read_text(table, newline=""), newline=""))
        header, *lines = [[csv_text(cell) for cell in line] for line in reader] or [[]]
    except csv.Error as error:
        raise UserError(f"{table} is no table of results ({error}): remove it, or put it back") from error
    if not {*OF_RUN, study.moment} <= set(header):
        return {}
    values = header[header.index(study.moment) + 1 :]
    found: dict[str, dict[int, Line]] = {}
    for cells in lines:
        line = dict(zip(header, cells, strict=False))
        try:
            at = int(line[study.moment])
            scores = {name: float(line[name]) for name in values if line.get(name)}
            found.setdefault(line["settings"], {})[at] = Line(at, scores, float(line["seconds"]))
        except (KeyError, ValueError) as error:
            raise UserError(f"{table}: {error}; its values should be numbers, as `sipo study` wrote them") from None
    return {settings: list(lines.values()) for settings, lines in found.items()}


def _rows(cell: Cell, lines: Sequence[Line]) -> list[Row]:
    return [Row(dict(cell.labels), cell.seed, line.at, line.values) for line in lines]
