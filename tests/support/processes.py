"""Work in two real processes, which share it without collectives, and of which one may be killed."""

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

from support.runs import on_two_ports

from sipo.errors import UserError
from sipo.processes import join_processes, meeting

HANGS = 120  # seconds


@dataclass(frozen=True)
class Kill:
    """SIGKILL of the process `rank` (alone: 0) when it opens the file `number`, from 1, whose name has that ending."""

    rank: int
    number: int
    ending: str

    def __call__(self) -> None:
        left = [self.number]

        def watch(event: str, arguments: tuple) -> None:
            if event == "open" and self.ending in Path(str(arguments[0])).name:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)


def in_two(work: Callable, *arguments, kill: Kill | None = None) -> list:
    """What `work(processes, *arguments)` returns in each, or its UserError's text; None of one that was killed."""
    return _run(on_two_ports(), work, arguments, kill)


def in_one(work: Callable, *arguments, kill: Kill | None = None) -> list:
    """The same in one process that is not this one."""
    return _run([(0, 1, 0)], work, arguments, kill)


def _run(places: list[tuple[int, int, int]], work: Callable, arguments: tuple, kill: Kill | None) -> list:
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    started = [context.Process(target=_one, args=(*place, work, arguments, kill, out)) for place in places]
    for each in started:
        each.start()
    for each in started:
        each.join(HANGS)
        assert each.exitcode is not None, "a process hangs"
    found = dict.fromkeys(range(len(places)))
    for _ in range(sum(each.exitcode == 0 for each in started)):
        try:
            rank, value = out.get(timeout=5)
        except Empty:
            raise AssertionError("a process left nothing") from None
        found[rank] = value
    assert [rank for rank, each in enumerate(started) if each.exitcode] == ([kill.rank] if kill else [])
    return list(found.values())


def _one(rank, world, port, work, arguments, kill, out):
    os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    faulthandler.dump_traceback_later(HANGS - 10)  # where it hangs, among the output of the failed test
    meeting.BEAT, meeting.GRACE = 0.3, 4.0
    if kill:
        meeting.SILENCE = 4.0  # else as users have it: a busy machine must not end anybody
    if kill and kill.rank == rank:
        kill()
    try:
        with join_processes(collectives=False) as processes:
            found = work(processes, *arguments)
    except UserError as error:
        found = str(error)
    out.put((rank, found))
