"""The figure of a study: lines of the mean over seeds with their intervals, a panel a label of the panels' axis."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from sipo.studies.grid import STEPS, Study
from sipo.studies.results import Row, measured, over_seeds


def draw(study: Study, rows: Sequence[Row]) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure_of(study, rows).savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def figure_of(study: Study, rows: Sequence[Row]) -> Figure:
    """A row of panels for each measured value. On `x: step` (or timestep) the curves run over them, else over an axis at the last,
    with a dotted line where the base is."""
    panels = list(study.axes[study.panels]) if study.panels else [""]
    names = [name for name in measured(study, rows) if name in study.measure.values]  # categories are in the tables
    size = (4.2 * len(panels), 3.2 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(names), len(panels), squeeze=False, sharex="col", sharey="row")
    for line, name in zip(axes, names, strict=True):
        for place, panel in zip(line, panels, strict=True):
            chosen = [row for row in rows if not study.panels or row.labels[study.panels] == panel]
            _panel(study, place, chosen, name)
            place.set_title(f"{study.panels} {panel}" if study.panels else "", fontsize=9)
        line[0].set_ylabel(name)
    for place in axes[-1]:
        place.set_xlabel("timestep, where a bin begins" if study.x == "timestep" else study.x)
    fullest = max(reversed(axes[0]), key=lambda place: len(place.lines))  # a study under way has panels without curves
    if study.curves:
        fullest.legend(title=study.curves, fontsize=7, title_fontsize=7, frameon=False)
    return figure


def _panel(study: Study, place, rows: Sequence[Row], name: str) -> None:
    if not rows:
        return
    last = max(row.at for row in rows)
    curves = list(study.axes[study.curves]) if study.curves else [study.title]
    for number, curve in enumerate(curves):
        mine = [row for row in rows if not study.curves or row.labels[study.curves] == curve]
        if study.x not in STEPS:
            mine = [row for row in mine if row.at == last]
        points = _points(study, mine, name)
        if not points:
            continue  # a study under way
        xs, means = list(points), [point.mean for point in points.values()]
        lows, highs = [point.low for point in points.values()], [point.high for point in points.values()]
        style = {"label": curve, "color": f"C{number}", "marker": "o", "markersize": 3}
        if study.x not in STEPS and not _has_numbers(study):  # names, between which nothing lies
            half = [high - middle for high, middle in zip(highs, means, strict=True)]
            place.errorbar(xs, means, yerr=half, linestyle="none", capsize=2, **style)
            place.tick_params(axis="x", rotation=90)
            continue
        place.plot(xs, means, linewidth=1.3, **style)
        place.fill_between(xs, lows, highs, color=f"C{number}", alpha=0.15, linewidth=0)
    first = min(row.at for row in rows)
    if study.x not in STEPS and first < last:  # the base, which all runs begin as
        base = [row.values[name] for row in rows if row.at == first]
        place.axhline(sum(base) / len(base), color="0.6", linewidth=0.9, linestyle=":", zorder=0)
    if study.x not in STEPS and _has_numbers(study) and min(map(float, study.axes[study.x])) > 0:
        place.set_xscale("log")


def _points(study: Study, rows: Sequence[Row], name: str) -> dict:
    """Position on the horizontal -> summary over seeds."""
    if study.x in STEPS:
        return {
            step: summary for (_, step), summary in sorted(over_seeds(rows, name).items(), key=lambda item: item[0][1])
        }
    index = list(study.axes).index(study.x)
    found = {labels[index]: summary for (labels, _), summary in over_seeds(rows, name).items()}
    ordered = [label for label in study.axes[study.x] if label in found]
    return {float(label) if _has_numbers(study) else label: found[label] for label in ordered}


def _has_numbers(study: Study) -> bool:
    return all(_is_number(label) for label in study.axes[study.x])


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True
