"""`sipo study`: a grid of runs, and a page of what they scored."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli.common import console, quiet_libraries, say


def study(
    name: Annotated[
        str, typer.Argument(help="A study that ships with the package, or a YAML file.", show_default=False)
    ],
    jobs: Annotated[int, typer.Option(min=1, help="Runs at once, each a process with one thread.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="The short form: fewer runs and steps.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and how long they will take.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the page, its figure and its CSV.")] = Path("docs/results"),
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/studies"),
) -> None:
    """Run what a study lacks, and write its page after every run. The same command continues a study that was stopped.

    Runs whose results stand with the same settings in a CSV of that folder, this study's or another's, count as done,
    wherever they were made.
    """
    from sipo.studies.grid import read_study
    from sipo.studies.published import gather
    from sipo.studies.running import describe, run_missing

    chosen = read_study(name).shortened() if quick else read_study(name)
    folder = runs / (f"{chosen.name}-quick" if quick else chosen.name)
    cells, pages = chosen.cells(folder), folder if quick else out
    table = pages / f"{chosen.name}.csv"
    results = gather(chosen, cells, table)
    done = [result.cell for result in results]
    if dry_run:
        say(describe(chosen, cells, done, [result.seconds for result in results], jobs))
        return
    quiet_libraries()
    from sipo.studies.page import write_page

    command = f"sipo study {name}{' --quick' if quick else ''}"

    def write() -> Path:
        return write_page(chosen, gather(chosen, cells, table), len(cells), pages, command)

    run_missing(chosen, cells, done, jobs, console(), write)
    say(f"page: {write()}")
