"""Two real processes without collectives: units of work are taken once each, and the first process shows what all have done."""

import io
import time

from rich.console import Console
from support.processes import in_two

from sipo.errors import UserError
from sipo.processes import ALONE


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
    for first, second, slow in zip(*in_two(takes_units), range(2), strict=True):
        assert sorted(first + second) == list("abcdefgh")
        assert (first[0], second[0]) == ("a", "b")
        assert [sorted(mine) for mine in (first, second)] == [first, second]
        assert len((first, second)[slow]) < 4


def looks(processes):
    return processes.of_main(lambda: processes.rank)


def test_without_collectives_each_looks_for_itself():
    assert in_two(looks) == [0, 1]


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
    first, second = in_two(draws)
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
    assert in_two(fails) == ["process 1 has ended: unit 7 cannot be read", "unit 7 cannot be read"]


def test_one_process_takes_all_in_order():
    with ALONE.progress(None, "", 3):
        assert list(ALONE.share([3, 1, 2])) == [3, 1, 2]
