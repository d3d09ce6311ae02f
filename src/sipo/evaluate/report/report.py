"""A run as one self-contained page, and as a few lines for the terminal."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sipo.evaluate.pages.gallery import Shown, first_look, sections, shown
from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.words import (
    cautions,
    comparison_paragraph,
    grouped_warnings,
    interval,
    objective_name,
    percent,
    what_samples_say,
)
from sipo.evaluate.report.columns import Columns
from sipo.evaluate.report.contents import (
    all_comparisons,
    read_all_scores,
    read_evaluations,
    sample_strip,
    score_curves,
    tables,
)
from sipo.evaluate.report.panels import BY_TIMESTEP, HELD_OUT, TRAINING, VALIDATION, with_loss_settings
from sipo.evaluate.report.plots import Drawing, Panel, Series, draw_bins, draw_curves
from sipo.files import write_atomic
from sipo.run import RunDir, RunRecord, read_run
from sipo.run.record import best_score, best_validation, seconds_per_step

LAST_PART = 0.5  # the share of the run, from its end, that the curves by timestep are averaged over
STRIP_VIDEOS = 5_000_000  # bytes of videos among the samples over training


def report(run: RunDir) -> Path:
    """Write `report.html` and a PNG of every plot into `plots/`; return the page's path.

    The page needs no other file: pictures and curves are embedded. Any part of the run but its config may be missing.
    Raises `UserError` if the folder is no run or one of its files is damaged.
    """
    record, evaluations, scores = read_run(run), read_evaluations(run), read_all_scores(run)
    plots = draw_all(record) | {"scores": draw_scores(score_curves(run, scores))}
    for drawing in (drawing for group in plots.values() for drawing in group):
        write_atomic(run.path / "plots" / f"{drawing.panel.name}.png", drawing.png)
    name, evaluation = next(iter(evaluations.items()), ("", {"comparisons": [], "table": None}))
    main = next(iter(evaluation["comparisons"]), None)
    first, gallery = first_look(sections(main, run.evaluation / name) if main else [])
    page = render(
        "report.html",
        title=_title(record),
        run_name=run.path.resolve().name,
        paragraph=_paragraph(record, main),
        notices=_notices(record, main),
        comparison=main,
        records=evaluation["comparisons"],
        table=evaluation["table"],
        evaluations=all_comparisons(evaluations),
        scores=[(each.folder.relative_to(run.path).as_posix(), each) for each in scores],
        first=first,
        gallery=gallery,
        plots=plots,
        best=best_validation(record.validation),
        best_score=best_score(record.scores),
        strip=_strip(run),
        speed=_speed(record),
        tables=tables(record),
        last_part=LAST_PART,
    )
    write_atomic(run.report, page)
    return run.report


def summary(run: RunDir) -> str:
    """A few plain lines: win rates with their intervals, steps, best validation, the report's path."""
    record, comparisons = read_run(run), all_comparisons(read_evaluations(run))
    lines = [f"{_title(record)}: {record.last_step:,} of {record.num_steps:,} steps", *_results(comparisons)]
    if best := best_validation(record.validation):
        lines.append(f"  lowest held-out loss: {best['loss']:.4f} at step {best['step']:,}")
    if kept := best_score(record.scores):
        lines.append(f"  best held-out score: {kept['score']:.4f} by {kept['scorer']} at step {kept['step']:,}")
    lines += [f"  warning: {text}" for text in grouped_warnings(record.warnings)]
    if run.report.is_file():
        lines.append(f"  report: {run.report}")
    return "\n".join(lines)


def _results(comparisons: Sequence[tuple[str, Mapping]]) -> list[str]:
    several = len({comparison["scorer"] for _, comparison in comparisons}) > 1
    lines = []
    for name, comparison in comparisons:
        overall, (a, b) = comparison["overall"], comparison["names"]
        by = f" by {comparison['scorer']}" if several else ""
        lines.append(
            f"  {name}: {a} wins {percent(overall['win_rate']['value'])} against {b}{by} ("
            f"{interval(overall['win_rate'])}; {overall['wins']} won, {overall['ties']} tied, {overall['losses']} lost)"
        )
    return lines or ["  not compared with its base yet"]


def draw_all(record: RunRecord) -> dict[str, list[Drawing]]:
    """Every panel that has data, in groups: training, by_timestep, validation, held_out."""
    loss = record.config.get("loss") or {}
    best, kept = best_validation(record.validation), best_score(record.scores)
    keys = {series.key for panel in (*TRAINING, *BY_TIMESTEP) for series in panel.series}
    lines = Columns(record.train, keys, late=int(len(record.train) * (1 - LAST_PART)))
    drawn = {
        "training": [draw_curves(with_loss_settings(panel, loss), lines) for panel in TRAINING],
        "by_timestep": [draw_bins(with_loss_settings(panel, loss), lines) for panel in BY_TIMESTEP],
        "validation": [draw_curves(p, record.validation, True, best["step"] if best else None) for p in VALIDATION],
        "held_out": [draw_curves(p, record.scores, True, kept["step"] if kept else None) for p in HELD_OUT],
    }
    return {group: [drawing for drawing in drawings if drawing] for group, drawings in drawn.items()}


def draw_scores(curves: Mapping[str, list[dict]]) -> list[Drawing]:
    """A panel for each scorer that scored the samples of several steps."""
    note = "The mean over the samples of a step, which are few: differences between steps are mostly chance."
    drawn = []
    for scorer, lines in curves.items():
        name = "score-" + re.sub(r"[^A-Za-z0-9.-]", "-", scorer)
        panel = Panel(name, f"Score: {scorer}", "mean over samples", (Series("score"),), note)
        drawn.append(draw_curves(panel, lines, True))
    return [drawing for drawing in drawn if drawing]


def _title(record: RunRecord) -> str:
    path = str((record.config.get("model") or {}).get("path", "a model"))
    return f"{objective_name(record.config)} on {path.rstrip('/').rsplit('/', 1)[-1]}"


def _paragraph(record: RunRecord, comparison: Mapping | None) -> str:
    if not record.train:
        trained = "No training step is recorded yet. "
    else:
        trained = f"{objective_name(record.config)} ran for {record.last_step:,} of {record.num_steps:,} steps. "
    return trained + (comparison_paragraph(comparison) if comparison else "It has not been compared with its base yet.")


def _notices(record: RunRecord, comparison: Mapping | None) -> list[str]:
    notices = grouped_warnings(record.warnings)
    if notices and comparison:
        notices += what_samples_say(comparison)
    overflows = sum(line.get("overflows") or 0 for line in record.train)
    if overflows:
        notices.append(f"The fp16 scaler skipped {overflows:,.0f} steps because of an overflow.")
    return notices + (cautions(comparison) if comparison else [])


def _strip(run: RunDir) -> dict | None:
    """Every prompt's samples by step; videos are embedded up to `STRIP_VIDEOS` bytes in all, then contact sheets."""
    steps, rows = sample_strip(run)
    spent, media = 0, []
    for sample, paths in rows:
        cells: list[Shown] = []
        for path in paths:
            cells.append(shown(path, videos=spent < STRIP_VIDEOS))
            spent += len(cells[-1].video or "")
        media.append((sample, cells))
    return {"steps": steps, "rows": media} if rows else None


def _speed(record: RunRecord) -> dict | None:
    """The total seconds of a step, and (part, seconds, share) of its parts, the longest first."""
    seconds = seconds_per_step(record.train)
    total = seconds.pop("total", 0.0)
    if not total:
        return None
    parts = [(part, value, value / total) for part, value in sorted(seconds.items(), key=lambda item: -item[1])]
    return {"total": total, "steps": len(record.train), "parts": parts}
