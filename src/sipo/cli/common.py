"""What the commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sipo.errors import UsageError

Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value, as often as wanted.", show_default=False)]
ConfigFile = Annotated[Path, typer.Argument(help="A YAML config; see configs/.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


def console():
    from rich.console import Console

    return Console()


def quiet_libraries() -> None:
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # they speak while they are imported, too
        os.environ.setdefault(name, "error")
    from sipo.backbones.quiet import quiet_libraries as quiet

    quiet()


def named(option: str, entries: list[str] | None) -> dict[str, str]:
    """NAME=VALUE, as often as given."""
    found = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not equals or not name or not value or name in found:
            raise UsageError(f"{option}: {entry!r} should be NAME=VALUE, each name once")
        found[name] = value
    return found
