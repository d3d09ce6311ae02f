"""What the commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sipo.errors import printable

Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value, repeatable.", show_default=False)]
ConfigFile = Annotated[Path, typer.Argument(help="A YAML config; see configs/.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


def console():
    from sipo.screen import Screen

    return Screen()


def say(text: str, nl: bool = True, err: bool = False) -> None:
    """Print a line that may hold texts from outside."""
    typer.echo(printable(text), nl=nl, err=err)


def quiet_libraries() -> None:
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # they print during import, too
        os.environ.setdefault(name, "error")
    from sipo.backbones import quiet_libraries as quiet

    quiet()
