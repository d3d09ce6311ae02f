"""The benchmark of loading: what it counts, on a config's own pairs."""

import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from support.command_line import run
from support.configs import changed

from sipo.config import parse_config
from sipo.data.dataset import MediaPairs
from sipo.data.pairs.open import open_pairs
from sipo.errors import UsageError
from sipo.plan.loading import measure_loading, rate
from sipo.processes import ALONE
from sipo.size import Size
from sipo.yaml12 import write_yaml


def test_a_rate_cannot_be_above_what_an_item_takes(raw_config, tiny_pairs, monkeypatch):
    """Every item sleeps for 10 ms, so 100 a second is a bound; and every pair but the first step's is read within the time."""
    read = []

    def slow(self, slot, plain=MediaPairs.__getitem__):
        read.append(slot.index)
        time.sleep(0.01)
        return plain(self, slot)

    monkeypatch.setattr(MediaPairs, "__getitem__", slow)
    source = open_pairs(tiny_pairs)
    pairs = MediaPairs(source, list(range(7)), Size(32, 32))
    assert 0 < rate(pairs, parse_config(raw_config), ALONE, 0) <= 100
    assert len(read) == len(set(read)) == 6  # three whole steps of two


def test_the_command(raw_config, tmp_path, monkeypatch, capfd):
    (tmp_path / "config.yaml").write_text(write_yaml(changed(raw_config, "data.workers=0", "train.batch_size=2")))
    code, printed, complaints = run(monkeypatch, capfd, "benchmark", tmp_path / "config.yaml", "--loading", "6")
    assert code == 0, complaints
    rows = re.findall(r"^\| (\d) \| ([\d.,]+) \| ([\d.,]+) \| ([\d.,]+) \|$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1"]
    assert all(float(value.replace(",", "")) > 0 for row in rows for value in row[1:])
    assert not Path(raw_config["run"]).exists()
    code, _, complaints = run(monkeypatch, capfd, "benchmark", tmp_path / "config.yaml", "--loading", "3")
    assert code == 2
    assert "3 usable pairs are no two steps of 2: give more pairs" in complaints


def test_trajectories_are_refused(raw_config):
    """They are read as they are, so two of the three rates would be of something else."""
    with pytest.raises(UsageError, match="d3po reads trajectories"):
        measure_loading({**raw_config, "loss": {"name": "d3po"}}, 6, [0], Console(quiet=True))
