"""A second thread for what keeps no device busy: reading before it is needed, writing after it was made."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(items: Iterable[T], read: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each item with what `read` made of it, in order; the next one is read meanwhile. Raises what `read` raises."""
    with ThreadPoolExecutor(1) as thread:
        before: tuple[T, Future[R]] | None = None
        for item in items:
            coming = item, thread.submit(read, item)
            if before:
                yield before[0], before[1].result()
            before = coming
        if before:
            yield before[0], before[1].result()


@contextmanager
def in_background() -> Iterator[Callable[..., None]]:
    """Yields a function that makes calls (`function, *arguments`) in the other thread, one after another.

    It waits while the call before the last one is unfinished, and raises what that one raised; so does the context's end.
    """
    with ThreadPoolExecutor(1) as thread:
        running: list[Future[Any]] = []

        def call(function: Callable[..., Any], *arguments: Any) -> None:
            while running:
                running.pop().result()
            running.append(thread.submit(function, *arguments))

        yield call
        while running:
            running.pop().result()
