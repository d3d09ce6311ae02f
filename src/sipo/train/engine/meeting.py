"""How processes wait for each other outside of collectives, for as long as it takes, and learn that one of them has ended.

A collective gives up after minutes (10 with NCCL, 30 with gloo), and some work of one process alone takes longer: a first check,
a conversion, a sample grid. So a barrier counts arrivals in the launcher's key-value store. A thread in each process
beats there, and ends the process when another one has failed or no longer beats: within a minute, whatever it waits in.
"""

import os
import sys
import threading
import time
from datetime import timedelta

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from sipo.errors import UserError, printable

BEAT = 2.0  # seconds
SILENCE = 40.0  # without a beat a process counts as ended
GRACE = 10.0  # seconds for the process to say the reason itself, before the thread does

FAILED, DONE = "sipo/failed", "sipo/done"


class Meeting:
    """The processes of one launch. `close` leaves it; with a reason, the others end with that."""

    def __init__(self, rank: int, world: int):
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.rank, self.world, self.number = rank, world, 0
        # A connection of its own: the process group's may be held by a wait.
        self.store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=60), wait_for_workers=False)
        self.closed = threading.Event()
        self.seen = {other: (-1, time.monotonic()) for other in range(world) if other != rank}
        threading.Thread(target=self._watch, daemon=True).start()

    def barrier(self) -> None:
        """Wait until every process is here. Raises UserError with the reason if one of them has ended."""
        self.number += 1
        key, pause = f"sipo/barrier/{self.number}", 0.002
        try:
            here = self.store.add(key, 1)
            while here < self.world:
                if reason := self._failure():
                    raise UserError(reason)
                time.sleep(pause)
                pause, here = min(1.5 * pause, 0.25), self.store.add(key, 0)
        except RuntimeError as error:  # the store ends with the process that holds it
            raise UserError(f"another process of this training has ended ({error})") from error

    def close(self, reason: str | None = None) -> None:
        """Leave; the others are told why, if it is for an error."""
        self.closed.set()
        try:
            if reason is not None:
                self.store.set(f"{FAILED}/{self.rank}", reason[:2000])
                self.store.add(FAILED, 1)
                if self.rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
                    time.sleep(2 * BEAT)  # this process holds the store, where the others have yet to read it
            else:
                self.store.add(f"{DONE}/{self.rank}", 1)
                if self.rank == 0:  # it may hold the store, where the others have yet to see their last barrier
                    while not all(
                        self.store.add(f"{DONE}/{other}", 0) or self._is_silent(other) for other in self.seen
                    ):
                        time.sleep(0.05)
        except RuntimeError:
            pass  # the store has ended: so has everybody

    def _failure(self) -> str | None:
        """Why the training cannot go on, as far as the others have told or left open."""
        if self.store.add(FAILED, 0):
            for other in self.seen:
                if self.store.check([f"{FAILED}/{other}"]):
                    return f"process {other} has ended: {self.store.get(f'{FAILED}/{other}').decode(errors='replace')}"
        for other in self.seen:
            if self._is_silent(other) and not self.store.add(f"{DONE}/{other}", 0):
                return f"process {other} has ended without a word (killed, or out of memory?)"
        return None

    def _is_silent(self, other: int) -> bool:
        return time.monotonic() - self.seen[other][1] > SILENCE

    def _beat(self) -> str | None:
        """Show that this process lives, and look at the others; why the training cannot go on, if so."""
        self.store.add(f"sipo/beat/{self.rank}", 1)
        for other, (count, _) in self.seen.items():
            if (now := self.store.add(f"sipo/beat/{other}", 0)) != count:
                self.seen[other] = now, time.monotonic()
        return self._failure()

    def _watch(self) -> None:
        while not self.closed.wait(BEAT):
            try:
                reason = self._beat()
            except RuntimeError as error:
                reason = f"another process of this training has ended ({error})"
            if reason and not self.closed.wait(GRACE):
                print(f"error: {printable(reason)}", file=sys.stderr, flush=True)
                os._exit(1)  # the main thread may be in a collective that never returns
