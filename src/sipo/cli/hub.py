"""`sipo push`: a run on the Hugging Face hub."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sipo.cli.common import RunFolder, console, quiet_libraries, say
from sipo.errors import UsageError


def push(
    run: RunFolder,
    repo: Annotated[
        str, typer.Argument(help="OWNER/NAME on the hub; NAME alone is one of your own.", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="A new repository that only you see.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made where it is missing; default: main.")] = None,
    step: Annotated[int | None, typer.Option(help="The weights of a kept checkpoint; default: RUN/weights.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best weights by the score of train.keep_best.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go; send nothing, ask nobody.")] = False,
) -> None:
    """Upload weights, card, settings, metrics, report and pictures to the hub. No checkpoints, caches or paths of this machine."""
    from sipo.push.contents import pack
    from sipo.push.upload import full_name, require_name, upload
    from sipo.run import RunDir

    require_name(repo)
    if best and step is not None:
        raise UsageError("--best: a step is given too; choose one of them")
    opened, screen = RunDir(run).require(), console()
    name = repo if dry_run else full_name(repo)  # a token is missed before anything is written
    with tempfile.TemporaryDirectory() as staging:
        weights = opened.weights
        if best or step is not None or not weights.is_dir():
            quiet_libraries()
            from sipo.train.export import export

            weights = Path(staging) / "weights"
            say(f"weights of step {export(opened, step, weights, best)}")
        if not opened.has_current_report():
            from sipo.evaluate.report.report import report

            report(opened)
        parcel = pack(opened, weights, name, revision, Path(staging) / "changed")
        table = Table("file", "bytes", box=None, padding=(0, 2, 0, 0))
        table.columns[1].justify = "right"
        for item in parcel.items:
            table.add_row(Text(item.path), f"{item.size:,}")
        screen.print(table)
        for note in parcel.notes:
            screen.print(Text.assemble(("notice: ", "yellow"), note))
        total = f"{len(parcel.items)} files, {parcel.size / 1e6:,.1f} MB"
        if dry_run:
            say(f"{total} would go to {name}; nothing was sent")
        else:
            say(f"{total} in {upload(parcel, name, private, revision, screen)}")
