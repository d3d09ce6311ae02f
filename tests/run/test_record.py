"""What a run records, read without the report: from files by hand, from none, and from damaged ones."""

import json
import subprocess
import sys
import tracemalloc

import pytest

from sipo.errors import UserError
from sipo.evaluate.report.columns import Columns
from sipo.run import RunDir, read_run
from sipo.run.record import best_validation, seconds_per_step
from sipo.train.record import MetricsFile

LINES = [
    {"kind": "validation", "step": 0, "loss": 0.7},
    {"kind": "train", "step": 1, "loss": 0.6},
    {"kind": "warning", "step": 1, "message": "Rewards fall."},
    {"kind": "train", "step": 2, "loss": 0.5},
]


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path)
    run.config.write_text("train: {num_steps: 10}\nloss: {name: sipo}\n")
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"kind": "tr')
    run.env.write_text('{"device": "cpu"}')
    return run


def test_metrics_come_by_kind_and_in_order(run):
    record = read_run(run)
    assert [line["step"] for line in record.train] == [1, 2]
    assert (record.validation, record.warnings) == ([LINES[0]], [LINES[2]])
    assert (record.last_step, record.num_steps) == (2, 10)
    assert record.config["loss"] == {"name": "sipo"}
    assert (record.env, record.data) == ({"device": "cpu"}, None)


def test_only_the_config_must_exist(run):
    run.metrics.unlink()
    run.env.unlink()
    record = read_run(run)
    assert (record.validation, record.warnings, record.env, record.last_step) == ([], [], None, 0)
    assert list(record.train) == []
    run.config.write_text("")
    assert read_run(run).num_steps == 0
    run.config.unlink()
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        read_run(run)


def test_lines_stay_on_the_disk(tmp_path):
    """8 MB of metrics: reading, drawing's numbers, the median of seconds, and resuming hold a fifth of it at most."""
    run = RunDir(tmp_path)
    run.config.write_text("loss: {name: sipo}\n")
    bins = {"edges": list(range(1001)), "count": [1] * 1000, "loss": [0.5] * 1000}
    with run.metrics.open("w") as file:
        for step in range(1, 801):
            line = {"kind": "train", "step": step, "loss": 1.0, "bins": bins, "seconds": {"total": 0.5}}
            file.write(json.dumps(line) + "\n")
    assert run.metrics.stat().st_size > 8_000_000
    tracemalloc.start()
    try:
        record = read_run(run)
        assert (len(record.train), record.train[-1]["step"], record.train[0]["step"]) == (800, 800, 1)
        assert len(Columns(record.train, ["loss"], late=400).points["loss"][0]) == 800
        assert seconds_per_step(record.train) == {"total": 0.5}
        assert [line["step"] for line in run.iter_metrics()] == list(range(1, 801))
        MetricsFile(run.metrics, 799)
        assert tracemalloc.get_traced_memory()[1] < 1_600_000
    finally:
        tracemalloc.stop()
    assert read_run(run).last_step == 799


def test_a_file_that_is_cut_while_it_is_read_is_named(run):
    record = read_run(run)
    run.metrics.write_text("[]\n" * 200)
    with pytest.raises(UserError, match=r"metrics\.jsonl, which changed while it was read"):
        list(record.train)


def test_a_damaged_file_is_named(run):
    run.data.write_text("{")
    with pytest.raises(UserError, match=r"data\.json is not JSON"):
        read_run(run)
    run.data.unlink()
    run.metrics.write_text('{"kind": "train", "step": 1}\n{"kin\n{"kind": "train", "step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not JSON"):
        read_run(run)


def test_a_run_that_took_more_steps_than_its_config_asks_for(run):
    run.config.write_text("train: {num_steps: 1}\n")
    assert read_run(run).num_steps == 2


def test_reading_a_run_needs_neither_torch_nor_the_report(run):
    """Studies read hundreds of runs; they should start in a moment."""
    code = (
        "import sys; from pathlib import Path; from sipo.run import RunDir, read_run\n"
        "record = read_run(RunDir(Path(sys.argv[1])))\n"
        "print(record.last_step, sorted({'torch', 'matplotlib', 'sipo.evaluate'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True)
    assert result.stdout == "2 []\n", result.stderr


def test_the_best_step_has_the_lowest_loss_per_pair_kept():
    lines = [
        {"step": 0, "loss": 0.69, "pruned": 0.0},
        {"step": 10, "loss": 0.60, "pruned": 0.0},
        {"step": 20, "loss": 0.60, "pruned": 0.0},
        {"step": 30, "loss": 0.34, "pruned": 0.5},  # 0.68 per pair kept: pruning half of them is no progress
        {"step": 40, "loss": 0.0, "pruned": 1.0},
    ]
    assert best_validation(lines)["step"] == 10
    assert best_validation([]) is None


def test_seconds_are_medians():
    lines = [{"seconds": {"total": t, "policy": t / 2}} for t in (9.0, 1.0, 2.0)]
    assert seconds_per_step(lines) == {"total": 2.0, "policy": 1.0}
    assert seconds_per_step([{}]) == {}
