"""What a loader worker does besides loading."""

import multiprocessing
import os
import threading


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
