"""What the commands share."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sipo.errors import printable

Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value, repeatable.", show_default=False)]
ConfigFile = Annotated[
    str, typer.Argument(help="A YAML config (see configs/), or one of the hub: hf://OWNER/NAME.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


def console(quiet: bool = False):
    from sipo.screen import Screen

    return Screen(quiet=quiet)


@contextlib.contextmanager
def together() -> Iterator[tuple]:
    """The processes that share a command's work (`sipo.processes`), and a console on which the first one alone prints."""
    from sipo.processes import join_processes

    with join_processes(collectives=False) as processes:
        yield processes, console(quiet=not processes.is_main)


def is_first() -> bool:
    """Whether this process is the one that speaks, of those that a launcher started."""
    return int(os.environ.get("RANK", 0)) == 0


def say(text: object, nl: bool = True, err: bool = False) -> None:
    """Print a line that may hold texts from outside, once in a launch."""
    if is_first():
        typer.echo(printable(text), nl=nl, err=err)


def quiet_libraries() -> None:
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # they print during import, too
        os.environ.setdefault(name, "error")
    from sipo.backbones import quiet_libraries as quiet

    quiet()
