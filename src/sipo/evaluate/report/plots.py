"""Curves: their numbers out of metric lines, and one small figure a panel, SVG in the page's colours and PNG on white."""

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sipo.evaluate.report.columns import Columns

# Chosen and rejected have one colour everywhere; all of these are legible on white and on near-black.
CHOSEN, REJECTED, NEUTRAL, QUIET = "#2b7bba", "#d9642c", "#2f9184", "#8c96a3"
INK, GRID = "#27313b", "#dde2e7"  # in SVG these two become the page's own text and rule colours
MAX_POINTS = 400  # of a curve
TITLE = 24  # letters of a line of a title, which the width has room for

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 9.5, "svg.fonttype": "none", "svg.hashsalt": "sipo",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 3, "ytick.major.size": 3,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "legend.frameon": False, "legend.fontsize": 9.5, "legend.handlelength": 1.6, "lines.solid_capstyle": "round",
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One line of a panel: the metric's key, its name in the legend, how it looks."""

    key: str
    label: str = ""
    colour: str = NEUTRAL
    dash: str = "-"


@dataclass(frozen=True)
class Panel:
    """One small figure; `note` is the text below it, on what to look for.

    `levels` are heights of dashed lines, `band` is shaded, `limits` fix the y axis (None: from the data).
    """

    name: str
    title: str
    unit: str
    series: tuple[Series, ...]
    note: str = ""
    levels: tuple[float, ...] = ()
    band: tuple[float, float] | None = None
    limits: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Drawing:
    """A finished panel in both forms."""

    panel: Panel
    svg: str
    png: bytes


def draw_curves(
    panel: Panel,
    records: Sequence[dict] | Columns,
    marks: bool = False,
    best_step: int | None = None,
    xlabel: str = "optimizer step",
) -> Drawing | None:
    """The panel's series over optimizer steps (or what `xlabel` says that "step" is): a thick moving average over the faint raw values; None without data.

    `marks` draws every value as a point instead, for the few values of a validation; `best_step` gets a vertical line.
    """
    found = [(series, c) for series in panel.series if (c := curve(records, series.key))]
    if not found:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(panel, xlabel)
        for series, c in found:
            if marks:
                axes.plot(
                    c.steps, c.raw, color=series.colour, ls=series.dash, lw=1.5, marker="o", ms=3.5, label=series.label
                )
                continue
            axes.plot(c.steps, c.raw, color=series.colour, lw=0.7, alpha=0.3)
            axes.plot(c.steps, c.smooth, color=series.colour, ls=series.dash, lw=1.7, label=series.label)
        if best_step is not None:
            axes.axvline(best_step, color=INK, lw=0.8, ls=(0, (3, 2)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True))
        return _finish(panel, figure, axes)


def draw_bins(panel: Panel, records: Sequence[dict] | Columns) -> Drawing | None:
    """The panel's series over the timestep, each mean at the middle of its bin; None without data."""
    found = [(series, bins) for series in panel.series if (bins := binned(records, series.key))]
    if not found:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(panel, "timestep t  (low to high noise)")
        for series, (edges, means, _) in found:
            centres = (edges[:-1] + edges[1:]) / 2
            axes.plot(centres, means, color=series.colour, ls=series.dash, lw=1.5, marker="o", ms=3, label=series.label)
            axes.set_xlim(edges[0], edges[-1])
        return _finish(panel, figure, axes)


def _axes(panel: Panel, xlabel: str):
    figure = Figure(figsize=(2.95, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.set_title(textwrap.fill(panel.title, TITLE))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(panel.unit)
    if panel.band:
        axes.axhspan(*panel.band, color=QUIET, alpha=0.15, lw=0)
    for height in panel.levels:
        axes.axhline(height, color=INK, lw=0.8, ls=(0, (3, 2)))
    return figure, axes


def _finish(panel: Panel, figure: Figure, axes) -> Drawing:
    if sum(bool(series.label) for series in panel.series) > 1:
        axes.legend(loc="best")
    low, high = axes.get_ylim()
    if high - low < 1e-9 * max(1.0, abs(high)):  # a constant: matplotlib would label it as an offset
        axes.set_ylim(low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))
    axes.set_ylim(*panel.limits)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", dpi=220, facecolor="white", metadata={"Software": None})
    figure.set_layout_engine("none")  # laid out once, for both
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Drawing(panel, _inline_svg(svg.getvalue(), panel.name), png.getvalue())


def _inline_svg(svg: str, name: str) -> str:
    """The `<svg>` element alone, scaling with the page, its ids its own, its ink and grid the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor").replace(GRID, "var(--rule)")


@dataclass(frozen=True)
class Curve:
    """A series ready to draw: `raw` values or means of neighbouring steps, `smooth` their moving average; each (N,)."""

    steps: np.ndarray
    raw: np.ndarray
    smooth: np.ndarray


def columns(records: Sequence[dict] | Columns, key: str) -> Columns:
    return records if isinstance(records, Columns) else Columns(records, [key])


def curve(records: Sequence[dict] | Columns, key: str, max_points: int = MAX_POINTS) -> Curve | None:
    """The values of `key` over "step"; None where no record has a finite one. At most `max_points` points."""
    steps, values = (np.array(part, dtype=np.float64) for part in columns(records, key).points[key])
    if not len(steps):
        return None
    stride = -(-len(steps) // max_points)
    steps, values = _block_means(steps, stride), _block_means(values, stride)
    return Curve(steps, values, moving_average(values, window=1 + 2 * (len(steps) // 40)))


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """The centred mean over `window` (odd) neighbours; at the ends over those that exist. (N,) -> (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index, half = np.arange(len(values)), window // 2
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def binned(records: Sequence[dict] | Columns, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(edges (n + 1,), means (n,), counts (n,)) of `key` by timestep bin, over all records, weighted by pairs.

    A bin without pairs is NaN. None where no record has the key. Records with other bins than the last one's are
    ignored.
    """
    found = columns(records, key)
    edges = found.last_edges.get(key)
    if edges is None:
        return None
    sums, total = found.bins[key][edges]
    return (
        np.array(edges, dtype=np.float64),
        np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0),
        total,
    )


def _block_means(values: np.ndarray, stride: int) -> np.ndarray:
    """Means of consecutive blocks of `stride`; the last may be shorter."""
    starts = np.arange(0, len(values), stride)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
