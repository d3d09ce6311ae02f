"""The progress bar of long commands: how many items are done of how many, the time taken and the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(
    console: Console | None, text: str, total: int, completed: int = 0
) -> Iterator[Callable[[float], None]]:
    """A bar on the console, none without one. Yields the function that reports how many more items are done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        yield partial(progress.advance, progress.add_task(text, total=total, completed=completed))
