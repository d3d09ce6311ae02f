"""The progress bar of long commands: how many items are done of how many, the time taken and the time left."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


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


def track_batches(
    items: Sequence[T], size: int, console: Console | None, text: str, total: int
) -> Iterator[Sequence[T]]:
    """The items in batches of `size`, with a bar up to `total`; what `items` lacks of that is done already."""
    if size < 1:
        raise ValueError(f"The batch size must be at least 1, found {size}.")
    with progress_bar(console, text, total, total - len(items)) as advance:
        for start in range(0, len(items), size):
            yield items[start : start + size]
            advance(len(items[start : start + size]))
