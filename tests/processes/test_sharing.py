"""Two real processes without collectives: units of work are taken once each, and the first process shows what all have done."""

import io
import multiprocessing
import os
import time

from rich.console import Console
from support.runs import on_two_ports

from sipo.errors import UserError
from sipo.processes import ALONE, join_processes, meeting


def run(work) -> list:
    """What two processes put out, by rank."""
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    both = [context.Process(target=one, args=(*place, work, out)) for place in on_two_ports()]
    for each in both:
        each.start()
    found = [out.get(timeout=60) for _ in both]
    for each in both:
        each.join(60)
        assert each.exitcode == 0
    return [value for _, value in sorted(found, key=lambda entry: entry[0])]


def one(rank, world, port, work, out):
    os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    meeting.BEAT, meeting.GRACE = 0.3, 2.0
    try:
        with join_processes(collectives=False) as processes:
            found = work(processes)
    except UserError as error:
        found = str(error)
    out.put((rank, found))


def takes_units(processes):
    """The first process is slow, then the other one: whoever is free takes more."""
    taken, slow = [], 0
    for slow in range(2):
        mine = []
        for unit in processes.share("abcdefgh"):
            time.sleep(0.3 if processes.rank == slow else 0.01)
            mine.append(unit)
        taken.append(mine)
        processes.barrier()
    return taken


def test_each_unit_is_taken_once_by_whoever_is_free():
    for first, second, slow in zip(*run(takes_units), range(2), strict=True):
        assert sorted(first + second) == list("abcdefgh")
        assert (first[0], second[0]) == ("a", "b")
        assert [sorted(mine) for mine in (first, second)] == [first, second]
        assert len((first, second)[slow]) < 4


def draws(processes):
    """The second process does nearly everything, while the first one waits."""
    text = io.StringIO()
    with processes.progress(Console(file=text, force_terminal=True, width=100), "units", 12, 2) as advance:
        if processes.rank == 1:
            time.sleep(0.5)
            advance(6)
            time.sleep(0.3)
        advance(2)
    return text.getvalue()


def test_the_first_process_draws_what_all_have_done():
    first, second = run(draws)
    assert "units" in first
    assert "4/12" in first
    assert "12/12" in first[-200:]
    assert second == ""


def fails(processes):
    for unit in processes.share(range(1000)):
        if processes.rank == 1 and unit > 1:
            raise UserError("unit 7 cannot be read")
        time.sleep(0.05)
    processes.barrier()


def test_a_failure_ends_the_others_work_with_its_reason():
    assert run(fails) == ["process 1 has ended: unit 7 cannot be read", "unit 7 cannot be read"]


def test_one_process_takes_all_in_order():
    with ALONE.progress(None, "", 3):
        assert list(ALONE.share([3, 1, 2])) == [3, 1, 2]
