"""How processes wait for each other outside of collectives, for as long as it takes, and learn that one of them has ended.

A collective gives up after minutes (10 with NCCL, 30 with gloo), and some work of one process alone takes longer: a first check,
a conversion, a sample grid. So a barrier counts arrivals in the launcher's key-value store. A thread in each process
beats there, and ends the process when another one has failed or no longer beats: within a minute, whatever it waits in.
"""

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from sipo.errors import UserError, printable

BEAT = 2.0  # seconds
SILENCE = 40.0  # without a beat a process counts as ended
GRACE = 10.0  # seconds for the process to say the reason itself, before the thread does
START = timedelta(minutes=10)  # within which all processes have been started

FAILED, LEFT = "failed", "left"
MEETINGS = itertools.count()  # of one launch, which share a store; every process counts alike


class Meeting:
    """The processes of one launch. `close` leaves it; with a reason, the others end with that."""

    def __init__(self, rank: int, world: int):
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.rank, self.world, self.number = rank, world, 0
        agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # the launcher's own process holds the store
        hosts = rank == 0 and not agent and not dist.is_initialized()
        # A connection of its own: the process group's may be held by a wait.
        store = TCPStore(address, port, is_master=hosts, timeout=START, wait_for_workers=False)
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = PrefixStore(f"sipo/{start}/{next(MEETINGS)}", store)
        self.closed = threading.Event()
        self.reason: str | None = None  # why the work cannot go on, once the thread knows
        self.seen = {other: (-1, time.monotonic()) for other in range(world) if other != rank}
        threading.Thread(target=self._watch, daemon=True).start()

    def barrier(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until every process is here; `meanwhile` is called now and then, and at the end.

        Raises UserError with the reason if one of them has ended.
        """
        key, pause = self.new_key("barrier"), 0.002
        here = self.add(key, 1)
        while here < self.world:
            self._require_all()
            meanwhile()
            time.sleep(pause)
            pause, here = min(1.5 * pause, 0.25), self.add(key, 0)
        meanwhile()

    def numbers(self, total: int) -> Iterator[int]:
        """The numbers below `total`, each of which one process gets: a first one each, then who is free takes the next."""
        key, number = self.new_key("taken"), self.rank
        while number < total:
            yield number
            if self.reason:
                raise UserError(self.reason)
            number = self.world + self.add(key, 1) - 1

    def new_key(self, what: str) -> str:
        """A name in the store, the same in all processes: they ask for names in the same order."""
        self.number += 1
        return f"{what}/{self.number}"

    def add(self, key: str, amount: int) -> int:
        """What all processes have added under a name. Raises UserError where the store is gone."""
        try:
            return self.store.add(key, amount)
        except RuntimeError as error:  # the store ends with the process that holds it
            raise UserError(f"another process has ended ({error})") from error

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
                self.store.add(f"{LEFT}/{self.rank}", 1)
                if self.rank == 0:  # it may hold the store, where the others have yet to see their last barrier
                    while not all(
                        self.store.add(f"{LEFT}/{other}", 0) or self._is_silent(other) for other in self.seen
                    ):
                        time.sleep(0.05)
        except RuntimeError:
            pass  # the store has ended: so has everybody

    def _require_all(self) -> None:
        try:
            reason = self._failure()
        except RuntimeError as error:
            reason = f"another process has ended ({error})"
        if reason:
            raise UserError(reason)

    def _failure(self) -> str | None:
        """Why the work cannot go on, as far as the others have told or left open."""
        if self.store.add(FAILED, 0):
            for other in self.seen:
                if self.store.check([f"{FAILED}/{other}"]):
                    return f"process {other} has ended: {self.store.get(f'{FAILED}/{other}').decode(errors='replace')}"
        for other in self.seen:
            if self._is_silent(other) and not self.store.add(f"{LEFT}/{other}", 0):
                return f"process {other} has ended without a word (killed, or out of memory?)"
        return None

    def _is_silent(self, other: int) -> bool:
        return time.monotonic() - self.seen[other][1] > SILENCE

    def _beat(self) -> str | None:
        """Show that this process lives, and look at the others; why the work cannot go on, if so."""
        self.store.add(f"beat/{self.rank}", 1)
        for other, (count, _) in self.seen.items():
            if (now := self.store.add(f"beat/{other}", 0)) != count:
                self.seen[other] = now, time.monotonic()
        return self._failure()

    def _watch(self) -> None:
        while not self.closed.wait(BEAT):
            try:
                self.reason = self._beat()
            except RuntimeError as error:
                self.reason = f"another process has ended ({error})"
            if self.reason and not self.closed.wait(GRACE):
                print(f"error: {printable(self.reason)}", file=sys.stderr, flush=True)
                os._exit(1)  # the main thread may be in a collective that never returns
