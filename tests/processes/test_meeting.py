"""Two real processes, whose collectives give up after three seconds: waits outlast that, and a dead process ends the other."""

import multiprocessing
import os
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from support.runs import on_two_ports

from sipo.errors import UserError
from sipo.processes import join_processes, meeting

TIMEOUT = timedelta(seconds=3)


def slow_first(processes, out):
    """The first process works alone for twice the time-out, the other one waits in a barrier, then in a collective."""
    if processes.is_main:
        time.sleep(6)
    processes.barrier()
    out.put(processes.gather_objects(processes.rank))


def slow_before_a_collective(processes, out):
    if processes.is_main:
        time.sleep(6)
    out.put(processes.gather_objects(processes.rank))


def slow_look(processes, out):
    """The first process looks at something for twice the time-out; the other one is given what it found."""

    def look():
        out.put("looked")
        time.sleep(6)
        return f"found by {processes.rank}"

    out.put(processes.of_main(look))


class SlowClock:
    """The clock of the module under test, whose pauses between two looks at the store last a second."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def sleep(_):
        time.sleep(1)


def leaves_first(processes, out):
    """The first process holds the store, and leaves while the other one has yet to look whether all are there."""
    if processes.rank == 1:
        meeting.time = SlowClock()
    else:
        time.sleep(1.5)
    processes.barrier()
    out.put("left")


def fails(processes, out):
    if processes.rank == 1:
        raise UserError("row 7 cannot be read")
    waits(processes, out)


def vanishes(processes, out):
    if processes.rank == 1:
        os._exit(9)
    waits(processes, out)


def waits(processes, out):
    try:
        processes.barrier()
    except UserError as error:
        out.put(str(error))


def never_returns(processes, out):
    """The first process is stuck outside of Python's reach when the other one fails."""
    if processes.rank == 1:
        raise UserError("row 7 cannot be read")
    time.sleep(120)


def one(rank, world, port, work, out):
    os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    begin = dist.init_process_group
    dist.init_process_group = lambda *a, **k: begin(*a, **k, timeout=TIMEOUT)
    meeting.BEAT, meeting.SILENCE, meeting.GRACE = 0.3, 4.0, 2.0
    with join_processes() as processes:
        work(processes, out)


def run(work) -> tuple[list[int], list, float]:
    """Exit codes, what was put out, and the seconds until the first process ended."""
    context = multiprocessing.get_context("fork")
    out, start = context.Queue(), time.monotonic()
    both = [context.Process(target=one, args=(*place, work, out)) for place in on_two_ports()]
    for each in both:
        each.start()
    both[0].join(60)
    seconds = time.monotonic() - start
    codes = []
    for each in both:
        each.join(20)
        codes.append(each.exitcode)
        each.kill()
    found = []
    while not out.empty():
        found.append(out.get())
    return codes, found, seconds


def test_one_process_looks_for_all():
    codes, found, _ = run(slow_look)
    assert (codes, sorted(found)) == ([0, 0], ["found by 0", "found by 0", "looked"])


@pytest.mark.parametrize("work", [slow_first, slow_before_a_collective])
def test_waiting_outlasts_the_time_out_of_collectives(work):
    assert run(work)[:2] == ([0, 0], [[0, 1], [0, 1]])


def test_the_first_process_leaves_last():
    assert run(leaves_first)[:2] == ([0, 0], ["left", "left"])


def test_a_failure_ends_the_others_with_its_reason():
    _, found, seconds = run(fails)
    assert found == ["process 1 has ended: row 7 cannot be read"]
    assert seconds < 40


def test_a_killed_process_ends_the_others():
    codes, found, seconds = run(vanishes)
    assert codes[1] == 9
    assert len(found) == 1
    assert "process 1 has ended without a word" in found[0]
    assert seconds < 50


def test_a_process_that_is_stuck_is_ended(capfd):
    codes, _, seconds = run(never_returns)
    assert codes[0] == 1
    assert seconds < 50
    assert "error: process 1 has ended: row 7 cannot be read" in capfd.readouterr().err
