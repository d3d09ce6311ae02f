"""Lines of several processes: joined in order, taken over after a kill by any number of processes, torn lines left out."""

import json
import time

import pytest
from support.folders import contents
from support.processes import Kill, in_one, in_two

from sipo.errors import UserError
from sipo.processes import batches
from sipo.processes.journal import Journal

NAMES = [f"{number:02d}" for number in range(12)]


def writes(processes, path):
    """The names that this process had to make."""
    journal = Journal(path, processes, "name")
    done = journal.begin(lambda line: line["value"] >= 0)
    mine = []
    with processes.progress(None, "", len(NAMES)) as advance:
        for batch in processes.share(batches([name for name in NAMES if name not in done], 2)):
            time.sleep(0.2 * processes.rank)  # the first one, which may be killed, is fast
            journal.add({"name": name, "value": int(name)} for name in batch)
            mine += batch
            advance(2)
    lines = journal.finish(NAMES)
    assert list(lines) == NAMES
    return mine


@pytest.fixture
def expected(tmp_path):
    assert in_one(writes, tmp_path / "expected.jsonl") == [NAMES]
    return (tmp_path / "expected.jsonl").read_bytes()


@pytest.mark.parametrize(("first", "then"), [(in_two, in_one), (in_one, in_two), (in_two, in_two)])
def test_a_killed_launch_is_finished_by_any_number_of_processes(tmp_path, expected, first, then):
    path = tmp_path / "some" / "lines.jsonl"
    path.parent.mkdir()
    first(writes, path, kill=Kill(0, 3, "lines.jsonl.0.part" if first is in_two else "lines.jsonl"))
    kept = Journal(path, key="name").lines()
    assert "00" in kept
    made = then(writes, path)
    assert sorted(name for names in made for name in names) == [name for name in NAMES if name not in kept]
    assert contents(path.parent) == {"lines.jsonl": expected}


def test_torn_lines_and_lines_that_are_refused_are_made_again(tmp_path, expected):
    path = tmp_path / "some" / "lines.jsonl"
    path.parent.mkdir()
    lines = [json.dumps({"name": name, "value": value}) + "\n" for name, value in (("05", 5), ("03", -1), ("07", 7))]
    path.write_text(lines[0] + lines[1][:9])
    path.with_name(".lines.jsonl.6.part").write_text(lines[1] + lines[2] + lines[0][:-1])
    assert in_one(writes, path) == [[name for name in NAMES if name not in ("05", "07")]]
    assert contents(path.parent) == {"lines.jsonl": expected}


def test_a_line_without_its_key_is_refused_with_its_file(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"name": ["00"], "value": 0}\n')
    with pytest.raises(UserError, match=r"lines\.jsonl: expected a text under 'name'"):
        Journal(tmp_path / "lines.jsonl", key="name").begin()
