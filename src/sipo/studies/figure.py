"""The figure of a study: lines of the mean over seeds, each seed's own beside it, a panel a label of the panels' axis."""

import io
import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from sipo.studies.grid import STEPS, Study
from sipo.studies.results import Row, at_ends, measured, over_seeds

FEW = 5  # curves in a panel whose intervals are shaded; those of more would hide each other
BASE = {"color": "0.6", "linewidth": 0.9, "linestyle": ":", "zorder": 0}


def draw(study: Study, rows: Sequence[Row]) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure_of(study, rows).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def figure_of(study: Study, rows: Sequence[Row]) -> Figure:
    """A row of panels for each measured value; without panels the values side by side. On `x: step` (or timestep) the curves run over
    them, else over an axis at the end of each run, with a dotted line where the base is. Labels that are no numbers, between which
    nothing lies, stand below each other. An interval is cut where it leaves what was measured: those of few seeds are wide.
    """
    panels = list(study.axes[study.panels]) if study.panels else [""]
    names = [name for name in measured(study, rows) if name in study.measure.values]  # categories are in the tables
    down, across = (len(names), len(panels)) if len(panels) > 1 else (1, len(names))
    draw_panel, height = (_names, 0.6 + 0.3 * len(study.axes[study.x])) if _has_names(study) else (_curves, 3.2)
    figure = Figure(figsize=(4.2 * across, height * down + 0.4), layout="constrained")
    shared = (False, True) if _has_names(study) else ("col", "row" if len(panels) > 1 else False)
    axes = figure.subplots(down, across, squeeze=False, sharex=shared[0], sharey=shared[1])
    for i, name in enumerate(names):
        for j, panel in enumerate(panels):
            place = axes[i, j] if len(panels) > 1 else axes[0, i]
            mine = [row for row in rows if not study.panels or row.labels[study.panels] == panel]
            draw_panel(study, place, mine, name, _limits(rows, name))
            place.set_title(f"{study.panels} {panel}" if study.panels else "", fontsize=9)
    if study.curves:
        found = (place.get_legend_handles_labels() for place in axes.flat)
        handles = {label: handle for each in found for handle, label in zip(*each, strict=True)}
        labels = [label for label in study.axes[study.curves] if label in handles]
        figure.legend(
            [handles[label] for label in labels], labels, title=study.curves, loc="outside lower center", ncols=min(len(labels), 5),
            fontsize=8, title_fontsize=8, frameon=False,
        )  # fmt: skip
    return figure


def _limits(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """Of the values of all runs, and a little beside them."""
    values = [value for row in rows if not math.isnan(value := row.values.get(name, math.nan))]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    return min(values) - margin, max(values) + margin


def _curves(study: Study, place, rows: Sequence[Row], name: str, limits: tuple[float, float]) -> None:
    """Means as lines over the horizontal, the seeds' own as thin ones, the intervals shaded where the lines are few."""
    labels = list(study.axes[study.curves]) if study.curves else [study.title]
    ends = rows if study.x in STEPS else at_ends(rows)
    for number, label in enumerate(labels):
        mine = [row for row in ends if not study.curves or row.labels[study.curves] == label]
        points = _points(study, mine, name)
        if not points:
            continue  # a study under way
        color, xs = f"C{number}", list(points)
        means = [each.mean for each in points.values()]
        place.plot(xs, means, color=color, label=label, linewidth=1.6, marker="o", markersize=3)
        for seed in sorted({row.seed for row in mine}):
            of_seed = _points(study, [row for row in mine if row.seed == seed], name)
            place.plot(list(of_seed), [each.mean for each in of_seed.values()], color=color, linewidth=0.6, alpha=0.5)
        if len(labels) <= FEW:
            lows, highs = [each.low for each in points.values()], [each.high for each in points.values()]
            place.fill_between(xs, lows, highs, color=color, alpha=0.12, linewidth=0)
    place.set_ylim(*limits)
    if place.get_subplotspec().is_first_col() or not study.panels or len(study.axes[study.panels]) == 1:
        place.set_ylabel(name)
    if place.get_subplotspec().is_last_row():
        place.set_xlabel("timestep, where a bin begins" if study.x == "timestep" else study.x)
    if study.x not in STEPS:
        if (base := _base(rows, name)) is not None:
            place.axhline(base, **BASE)
        if min(map(float, study.axes[study.x])) > 0:
            place.set_xscale("log")
            place.set_xticks([float(label) for label in study.axes[study.x]], list(study.axes[study.x]))
            place.minorticks_off()


def _names(study: Study, place, rows: Sequence[Row], name: str, limits: tuple[float, float]) -> None:
    """Means as points with their intervals, the seeds' own as small ones, a line a label."""
    labels, options = list(study.axes[study.curves]) if study.curves else [study.title], list(study.axes[study.x])
    for number, label in enumerate(labels):
        mine = [row for row in at_ends(rows) if not study.curves or row.labels[study.curves] == label]
        color, beside = f"C{number}", 0.5 * ((number + 0.5) / len(labels) - 0.5)
        points = _points(study, mine, name)
        at = [options.index(option) + beside for option in points]
        means, highs = [each.mean for each in points.values()], [each.high for each in points.values()]
        half = [high - middle for high, middle in zip(highs, means, strict=True)]
        style = {"color": color, "linestyle": "none"}
        place.errorbar(means, at, xerr=half, label=label, capsize=2, marker="o", markersize=4, **style)
        at = [options.index(row.labels[study.x]) + beside for row in mine]
        of_seeds = [row.values.get(name, math.nan) for row in mine]
        place.plot(of_seeds, at, marker="|", markersize=7, alpha=0.7, **style)
    if (base := _base(rows, name)) is not None:
        place.axvline(base, **BASE)
    place.set_yticks(range(len(options)), options)
    place.set_ylim(len(options) - 0.5, -0.5)
    place.set_xlim(*limits)
    place.set_xlabel(name)


def _base(rows: Sequence[Row], name: str) -> float | None:
    """What all runs begin as."""
    values = [row.values[name] for row in rows if row.at == 0 and name in row.values]
    return sum(values) / len(values) if values else None


def _points(study: Study, rows: Sequence[Row], name: str) -> dict:
    """Position on the horizontal -> summary over seeds."""
    if study.x in STEPS:
        return {
            step: summary for (_, step), summary in sorted(over_seeds(rows, name).items(), key=lambda item: item[0][1])
        }
    index = list(study.axes).index(study.x)
    found = {labels[index]: summary for (labels, _), summary in over_seeds(rows, name).items()}
    ordered = [label for label in study.axes[study.x] if label in found]
    return {label if _has_names(study) else float(label): found[label] for label in ordered}


def _has_names(study: Study) -> bool:
    """Whether labels that are no numbers are what is compared."""
    return study.x not in STEPS and not all(_is_number(label) for label in study.axes[study.x])


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
