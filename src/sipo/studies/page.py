"""A study's results for people: a figure, a Markdown page, and a CSV of every run."""

import platform
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from sipo.errors import printable
from sipo.files import write_atomic
from sipo.studies.grid import Study
from sipo.studies.published import Result, as_csv
from sipo.studies.results import Row, Summary, measured, over_seeds
from sipo.tables import markdown_table, markdown_text


def write_page(study: Study, results: Sequence[Result], total: int, out: Path, command: str) -> Path:
    """Write NAME.md, NAME.png and NAME.csv into `out` from the results of some or all of `total` runs; returns the page."""
    from sipo.studies.figure import draw

    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / f"{study.name}.csv", as_csv(study, results))
    write_atomic(out / f"{study.name}.png", draw(study, [row for result in results for row in result.rows]))
    page = out / f"{study.name}.md"
    write_atomic(page, _page(study, results, total, command))
    return page


def _page(study: Study, results: Sequence[Result], total: int, command: str) -> str:
    rows = [row for result in results for row in result.rows]
    seeds = ", ".join(map(str, sorted({result.cell.seed for result in results})))
    length = " or ".join(sorted({result.cell.length for result in results}))
    count = (
        f"{total} runs"
        if len(results) == total
        else f"**{len(results)} of {total} runs**, the others are still missing"
    )
    hours = sum(result.seconds for result in results) / 3600
    parts = [
        f"# {markdown_text(study.title)}",
        printable(study.question.strip()),  # the author's own Markdown
        f"    {' '.join(command.split())}",
        f"![{markdown_text(study.title)}]({quote(study.name)}.png)",
        f"{count}: {length}, seeds {seeds}; {_measured_on(study)}. {_cells(study)}",
        *(f"## {markdown_text(name)}\n\n{_table(study, rows, name)}" for name in measured(study, rows)),
        f"Every run and step: [{markdown_text(study.name)}.csv]({quote(study.name)}.csv). {hours:.2f} core-hours from each run's last start, one thread a run, on "
        f"{platform.machine()}, Python {platform.python_version()}.",
    ]
    return "\n\n".join(parts) + "\n"


def _measured_on(study: Study) -> str:
    if study.x == "timestep":
        return "means over all training steps, by timestep"
    return f"{study.measure.num_prompts} held-out prompts, scored by {markdown_text(study.measure.scorer)}"


def _cells(study: Study) -> str:
    if study.x == "timestep":
        return "A cell is the mean over seeds in the bin that begins at its t; the figure shades the 95% interval (Student's t)."
    return "A cell is the mean over seeds and its 95% interval (Student's t)."


def _table(study: Study, rows: Sequence[Row], name: str) -> str:
    """A line a setting: the value at the start, at its best step, at the end; over timesteps a column a bin."""
    found = over_seeds(rows, name)
    bins = sorted({row.at for row in rows}) if study.x == "timestep" else []
    columns = [f"t {left}" for left in bins] or ["start", f"best ({study.moment})", "end"]
    lines = []
    for labels in dict.fromkeys(labels for labels, _ in found):
        moments = {at: summary for (other, at), summary in found.items() if other == labels}
        best = max(moments, key=lambda at: moments[at].mean)
        first, last = min(moments), max(moments)
        of_bins = [f"{moments[left].mean:.3f}" if left in moments else "" for left in bins]
        lines.append(
            [*labels, *(of_bins or [_cell(moments[first]), f"{_cell(moments[best])} ({best})", _cell(moments[last])])]
        )
    return markdown_table([*study.axes, *columns], lines, left=list(study.axes))


def _cell(summary: Summary) -> str:
    if summary.count < 2:
        return f"{summary.mean:.3f}"
    return f"{summary.mean:.3f} [{summary.low:.3f}, {summary.high:.3f}]"
