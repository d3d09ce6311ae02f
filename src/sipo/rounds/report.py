"""The rounds as one self-contained page: the score over rounds, each round's record, and its pictures."""

from pathlib import Path
from typing import Any

from sipo.evaluate.pages.gallery import Shown, shown
from sipo.evaluate.pages.page import render
from sipo.evaluate.report.plots import CHOSEN, NEUTRAL, QUIET, Panel, Series, draw_curves
from sipo.files import write_atomic
from sipo.jsonl import read_json
from sipo.samples.folder import SAMPLES, read_samples
from sipo.yaml12 import read_mapping

NUM_SHOWN = 8  # held-out prompts whose samples the page shows
BUDGET = 5_000_000  # bytes of videos; beyond it contact sheets are shown

SCORE = Panel(
    "held-out-score", "Held-out score", "mean over samples",
    (Series("score", "held-out prompts", CHOSEN), Series("low", "95% interval", QUIET, ":"), Series("high", "", QUIET, ":")),
    "The same prompts and seeds after every round; round 0 is the model.",
)  # fmt: skip
OWN = Panel(
    "sampled-score", "Score of its own samples", "mean over samples", (Series("score", "", NEUTRAL),),
    "Training prompts, other ones in every round, sampled by the policy that the round before has left.",
)  # fmt: skip
PAIRS = Panel("pairs", "Pairs", "number", (Series("num_pairs"),), "Ties make none.", limits=(0.0, None))


def report(path: Path) -> Path:
    """Write `online.html`, and a PNG of every plot into `plots/`, from the rounds that are done; returns the page."""
    config, records = read_mapping(path / "online.yaml"), read_records(path)
    curves = over_rounds(records).items()
    plots = [drawing for panel, lines in curves if (drawing := draw_curves(panel, lines, True, xlabel="round"))]
    for drawing in plots:
        write_atomic(path / "plots" / f"{drawing.panel.name}.png", drawing.png)
    best = max(records, key=lambda record: (record["held_out"]["score"], -record["round"]))
    page = render(
        "online.html", title=f"{len(records) - 1} rounds of {config['loss']['name']} on {config['model']['path']}",
        name=path.resolve().name, config=config, records=records, best=best, plots=plots, rows=_pictures(path, records),
    )  # fmt: skip
    write_atomic(path / "online.html", page)
    return path / "online.html"


def over_rounds(records: list[dict[str, Any]]) -> dict[Panel, list[dict[str, Any]]]:
    """Of each panel the lines that it draws; their "step" is the round, whatever a record counts by that name."""
    return {
        SCORE: [{**record["held_out"], "step": record["round"]} for record in records],
        OWN: [{**record["samples"], "step": record["round"]} for record in records if "samples" in record],
        PAIRS: [{**record, "step": record["round"]} for record in records],
    }


def read_records(path: Path) -> list[dict[str, Any]]:
    """Those of all finished rounds, in order."""
    records = []
    while (record := record_of(path, len(records))) is not None:
        records.append(record)
    return records


def record_of(path: Path, number: int) -> dict[str, Any] | None:
    """What a finished round has left; None before its end."""
    return read_json(round_folder(path, number) / "round.json")


def round_folder(path: Path, number: int) -> Path:
    return path / f"round-{number:03d}"


def _pictures(path: Path, records: list[dict[str, Any]]) -> list[tuple[str, list[Shown]]]:
    """(prompt, its sample after each round), as far as the budget goes."""
    rounds = [_samples(round_folder(path, record["round"]) / "held-out") for record in records]
    rows, spent = [], 0
    for (prompt, seed), _ in list(rounds[0].items())[:NUM_SHOWN]:
        cells = []
        for files in rounds:
            cells.append(shown(files[prompt, seed], videos=spent < BUDGET))
            spent += len(cells[-1].video or "")
        rows.append((prompt, cells))
    return rows


def _samples(folder: Path) -> dict[tuple[str, int], Path]:
    """(prompt, seed) -> file, over the parts of a folder in order."""
    parts = sorted(folder.glob(f"*/{SAMPLES}"), key=lambda file: int(file.parent.name.partition("-of-")[0]))
    return {(each.prompt, each.seed): part.parent / each.file for part in parts for each in read_samples(part.parent)}
