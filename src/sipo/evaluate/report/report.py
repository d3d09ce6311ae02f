"""A run as one self-contained page, and as a few lines for the terminal."""

import re
from collections.abc import Mapping
from pathlib import Path

from sipo.evaluate.pages.gallery import sections
from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.pictures import Shown, shown
from sipo.evaluate.pages.words import (
    cautions,
    comparison_paragraph,
    grouped_warnings,
    interval,
    objective_name,
    percent,
)
from sipo.evaluate.report.panels import BY_TIMESTEP, TRAINING, VALIDATION, with_loss_settings
from sipo.evaluate.report.plots import Drawing, Panel, Series, draw_bins, draw_curves
from sipo.evaluate.report.run_record import (
    PARTS,
    Record,
    best_validation,
    read_record,
    sample_strip,
    score_curves,
    seconds_per_step,
)
from sipo.evaluate.report.tables import tables
from sipo.evaluate.scores.table import Scored
from sipo.files import write_atomic
from sipo.run import RunDir

LAST_PART = 0.5  # the share of the run, from its end, that the curves by timestep are averaged over
STRIP_VIDEOS = 5_000_000  # bytes of videos among the samples over training


def report(run: RunDir) -> Path:
    """Write `report.html` and a PNG of every plot into `plots/`; return the page's path.

    The page stands alone: pictures and curves are inside it, nothing is fetched. Any part of the run may be missing
    but its config. Raises `UserError` where the folder is no run or one of its files is damaged.
    """
    record = read_record(run)
    plots = draw_all(record) | {"scores": draw_scores(run, record)}
    for drawing in (drawing for group in plots.values() for drawing in group):
        write_atomic(run.path / "plots" / f"{drawing.panel.name}.png", drawing.png)
    name, comparison = next(iter(record.evaluations.items()), (None, None))
    page = render(
        "report.html",
        title=_title(record),
        run_name=run.path.resolve().name,
        paragraph=_paragraph(record, comparison),
        notices=_notices(record, comparison),
        comparison=comparison,
        evaluations=_evaluations(record),
        scores=[(_inside(run, each), each) for each in record.scores],
        gallery=sections(comparison, run.evaluation / name) if comparison else [],
        plots=plots,
        best=best_validation(record.validation),
        strip=_strip(run),
        speed=_speed(record),
        tables=tables(record),
        last_part=LAST_PART,
    )
    write_atomic(run.report, page)
    return run.report


def _evaluations(record: Record) -> list[tuple[str, Mapping]]:
    """(name, comparison) of all that the run's evaluations hold, several models and scorers one by one."""
    whole = [(name, each, each.get("more", [])) for name, each in record.evaluations.items()]
    return [(name, each) for name, first, more in whole for each in [first, *more]]


def _inside(run: RunDir, scored: Scored) -> str:
    return scored.folder.relative_to(run.path).as_posix()


def summary(run: RunDir) -> str:
    """A few plain lines: win rate with its interval, steps, best validation, the report's path."""
    record = read_record(run)
    lines = [f"{_title(record)}: {record.last_step:,} of {_num_steps(record):,} steps"]
    evaluations = _evaluations(record)
    several = len({comparison["scorer"] for _, comparison in evaluations}) > 1
    for name, comparison in evaluations:
        overall, (a, b) = comparison["overall"], comparison["names"]
        by = f" by {comparison['scorer']}" if several else ""
        lines.append(
            f"  {name}: {a} wins {percent(overall['win_rate']['value'])} against {b}{by} ("
            f"{interval(overall['win_rate'])}; {overall['wins']} won, {overall['ties']} tied, {overall['losses']} lost)"
        )
    if not record.evaluations:
        lines.append("  not compared with its base yet")
    if best := best_validation(record.validation):
        lines.append(f"  lowest held-out loss: {best['loss']:.4f} at step {best['step']:,}")
    lines += [f"  warning: {text}" for text in grouped_warnings(record.warnings)]
    if run.report.is_file():
        lines.append(f"  report: {run.report}")
    return "\n".join(lines)


def draw_all(record: Record) -> dict[str, list[Drawing]]:
    """Every panel that has data, in three groups: training, by_timestep, validation."""
    loss = record.config.get("loss") or {}
    best = best_validation(record.validation)
    tail = record.train[int(len(record.train) * (1 - LAST_PART)) :]
    drawn = {
        "training": [draw_curves(with_loss_settings(panel, loss), record.train) for panel in TRAINING],
        "by_timestep": [draw_bins(with_loss_settings(panel, loss), tail) for panel in BY_TIMESTEP],
        "validation": [draw_curves(p, record.validation, True, best["step"] if best else None) for p in VALIDATION],
    }
    return {group: [drawing for drawing in drawings if drawing] for group, drawings in drawn.items()}


def draw_scores(run: RunDir, record: Record) -> list[Drawing]:
    """A panel a scorer that judged the samples of several steps."""
    note = "The mean over the samples of a step, which are few: differences between steps are mostly chance."
    drawn = []
    for scorer, lines in score_curves(run, record.scores).items():
        name = "score-" + re.sub(r"[^A-Za-z0-9.-]", "-", scorer)
        drawn.append(
            draw_curves(Panel(name, f"Score: {scorer}", "mean over samples", (Series("score"),), note), lines, True)
        )
    return [drawing for drawing in drawn if drawing]


def _title(record: Record) -> str:
    path = str((record.config.get("model") or {}).get("path", "a model"))
    return f"{objective_name(record.config)} on {path.rstrip('/').rsplit('/', 1)[-1]}"


def _num_steps(record: Record) -> int:
    return max((record.config.get("train") or {}).get("num_steps", 0), record.last_step)


def _paragraph(record: Record, comparison: Mapping | None) -> str:
    if not record.train:
        trained = "No training step is recorded yet. "
    else:
        trained = f"{objective_name(record.config)} ran for {record.last_step:,} of {_num_steps(record):,} steps. "
    return trained + (comparison_paragraph(comparison) if comparison else "It has not been compared with its base yet.")


def _notices(record: Record, comparison: Mapping | None) -> list[str]:
    notices = grouped_warnings(record.warnings)
    overflows = sum(line.get("overflows") or 0 for line in record.train)
    if overflows:
        notices.append(f"The fp16 scaler skipped {overflows:,.0f} steps because of an overflow.")
    return notices + (cautions(comparison) if comparison else [])


def _strip(run: RunDir) -> dict | None:
    """Every prompt's samples by step; videos move as long as `STRIP_VIDEOS` bytes of them last."""
    steps, rows = sample_strip(run)
    spent, media = 0, []
    for sample, paths in rows:
        cells: list[Shown] = []
        for path in paths:
            cells.append(shown(path, videos=spent < STRIP_VIDEOS))
            spent += len(cells[-1].video or "")
        media.append((sample, cells))
    return {"steps": steps, "rows": media} if rows else None


def _speed(record: Record) -> dict | None:
    seconds = seconds_per_step(record.train)
    if not seconds or not seconds.get("total"):
        return None
    parts = [(part, seconds[part], seconds[part] / seconds["total"]) for part in PARTS if part in seconds]
    return {"total": seconds["total"], "steps": len(record.train), "parts": parts}
