"""`sipo list`: what can be named in configs and on the command line."""

from typing import Annotated

import typer

from sipo.cli.common import say
from sipo.errors import UsageError


def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="objectives, kernels, timesteps, scorers, detectors, families, miniatures or worlds.",
            show_default=False,
        ),
    ],
) -> None:
    """The names of a kind, what each is, and which package brings it; see docs/extending.md for your own."""
    from sipo.registry import LISTED

    if kind not in LISTED:
        raise UsageError(f"sipo list: {kind!r} is none of {', '.join(LISTED)}")
    found = list(LISTED[kind].entries())
    name, source = (max((len(getattr(entry, field)) for entry in found), default=0) for field in ("name", "source"))
    for entry in found:
        about = f"cannot be used: {entry.error}" if entry.error else entry.about
        say(f"{entry.name:<{name}}  {entry.source:<{source}}  {about}".rstrip())
