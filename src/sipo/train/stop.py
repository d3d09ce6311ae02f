"""Stopping well: Ctrl-C and SIGTERM end the step, save a checkpoint and say how to go on."""

import contextlib
import signal
import threading

from sipo.errors import Stopped, UserError
from sipo.run import RunDir


class StopRequest:
    """While the context lasts, the first SIGINT or SIGTERM is a request; the second one acts as usual."""

    def __init__(self) -> None:
        self.requested = False
        self.before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def finish(self, run: RunDir, step: int) -> None:
        raise Stopped(
            f"stopped after step {step} as asked; a checkpoint is saved. The same command goes on ({run.path})."
        )

    def _ask(self, number: int, frame: object) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


@contextlib.contextmanager
def worker_errors():
    """A UserError of a loader worker arrives with the worker's traceback in its text; the user needs its last part."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if "Original Traceback" not in text:
            raise
        raise UserError(text[text.rindex("UserError: ") + len("UserError: ") :].strip()) from None
