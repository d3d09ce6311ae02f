"""What a loader worker does besides loading."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator

from sipo.errors import UserError


def end_with_parent(_worker: int) -> None:
    """For DataLoader's `worker_init_fn`: the worker ends when the process that it loads for does, killed or not.

    torch watches for that by the parent's process id, which says nothing where workers are forked by a fork server
    (Python 3.14's default on Linux): a killed run would leave them there, each with its memory, for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_end, args=(parent,), daemon=True).start()


def _wait_and_end(parent) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """A UserError of a worker arrives with the worker's traceback in its text; the user needs its last part."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if "Original Traceback" not in text:
            raise
        raise UserError(text[text.rindex("UserError: ") + len("UserError: ") :].strip()) from None
