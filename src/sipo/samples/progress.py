"""Batches with a progress bar."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def track_batches(
    items: Sequence[T], size: int, console: Console | None, text: str, total: int
) -> Iterator[Sequence[T]]:
    """The items in batches of `size`. A console shows a bar up to `total`; the difference is done already."""
    if size < 1:
        raise ValueError(f"The batch size must be at least 1, found {size}.")
    columns = TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task(text, total=total, completed=total - len(items))
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            progress.advance(task, len(batch))
