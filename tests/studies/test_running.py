"""A study of two real runs at once by the command line: the scorer fails at first, the command again continues, and its page."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from support import command_line

from sipo.studies.grid import read_study
from sipo.studies.running import describe, missing
from sipo.yaml12 import read_mapping, write_yaml

SCORER = '''
import os
import numpy as np

class Brightness:
    """Mean level of a picture; cannot be made where the file `broken` stands beside it."""
    name = "brightness"

    def __init__(self):
        assert not os.path.exists("broken")

    def __call__(self, images, prompts, metadata=None):
        return [float(np.asarray(image).mean()) for image in images]
'''


@pytest.fixture
def study(raw_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_scorer.py").write_text(SCORER)
    base = {key: raw_config[key] for key in ("model", "data", "policy", "train", "log", "loss")}
    base["data"] = {**base["data"], "cache": "cache"}
    base["sample"] = {"num_inference_steps": 2}
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    raw = {
        "name": "tiny", "title": "Tiny", "question": "Does it run?", "base": base, "seeds": [0],
        "axes": {"objective": {"DPO": {"loss.name": "diffusion_dpo"}, "capped": {"loss.name": "capped_dpo"}}},
        "measure": {"scorer": "own_scorer:Brightness", "moments": 2, "prompts": "prompts.txt", "num_prompts": 2},
        "curves": "objective",
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(write_yaml(raw))
    return tmp_path


def test_from_a_grid_to_a_page(study, monkeypatch, capfd):
    def sipo(*arguments):
        return command_line.run(monkeypatch, capfd, "study", "tiny.yaml", *arguments, "--out", "results")

    code, printed, _ = sipo("--dry-run")
    assert (code, printed.count("to run  ")) == (0, 2)
    assert "2 runs of 4 steps, 2 to run: its time is not known before one run has finished" in printed
    (study / "broken").touch()
    code, printed, complaint = sipo("--jobs", "2")
    assert code == 1
    assert "2 of 2 runs failed" in complaint
    os.remove(study / "broken")
    code, printed, complaint = sipo("--jobs", "2")
    assert code == 0, complaint
    code, printed, _ = sipo("--dry-run")
    assert "2 runs of 4 steps, 0 to run: nothing to run" in printed
    lines = (study / "results/tiny.csv").read_text().splitlines()
    assert lines[0].startswith("objective,seed,settings,seconds,step,score,loss,accuracy,")
    assert [line.split(",")[4] for line in lines[1:4]] == ["0", "2", "4"]
    assert len(lines) == 7
    page = (study / "results/tiny.md").read_text()
    assert "| capped |" in page
    assert (study / "results/tiny.png").read_bytes().startswith(b"\x89PNG")
    grown = read_mapping(study / "tiny.yaml")
    grown["axes"]["objective"]["SIPO"] = {"loss.name": "sipo"}
    (study / "tiny.yaml").write_text(write_yaml(grown))
    assert sipo()[0] == 0
    drawn = {path.parts[-4]: path for path in (study / "runs/studies/tiny").rglob("samples/000000/*0.png")}
    assert drawn["sipo_seed0"].stat().st_mtime_ns in (  # the base's samples are those of a run before it
        drawn[other].stat().st_mtime_ns for other in ("dpo_seed0", "capped_seed0")
    )
    page = (study / "results/tiny.md").read_text()
    shutil.rmtree(study / "runs")
    code, printed, _ = sipo("--dry-run")
    assert "3 runs of 4 steps, 0 to run: nothing to run" in printed
    code, printed, _ = sipo()
    assert (study / "results/tiny.md").read_text() == page


def test_of_equal_runs_the_first_runs_for_all(tmp_path):
    study = read_study("stability")
    cells = study.cells(tmp_path)
    to_run = missing(cells, done=[])
    assert len(cells) - len(to_run) == len(study.seeds)  # SFT, which beta does not touch, stands under both
    assert [cell.labels["beta"] for cell in to_run if cell.labels["objective"] == "SFT"] == ["0.1"] * len(study.seeds)
    of_seed_0 = [cell for cell in cells if cell.seed == 0 and cell.labels == {"beta": "1", "objective": "SFT"}]
    assert len(missing(cells, of_seed_0)) == len(to_run) - 1
    assert "shared  1_sft_seed0" in describe(study, cells, [], [], jobs=1)


def test_a_study_of_online_rounds(study, monkeypatch, capfd):
    raw = read_mapping(study / "tiny.yaml")
    (study / "training.txt").write_text("three\nfour\n")
    raw["base"] = {key: value for key, value in raw["base"].items() if key != "data"} | {
        "data": {"cache": "encode"},
        "rounds": {"prompts": "training.txt", "num_prompts": 2, "epochs": None},
    }
    raw["base"]["train"]["num_steps"] = 2
    (study / "tiny.yaml").write_text(write_yaml({**raw, "x": "round"}))
    code, printed, complaint = command_line.run(monkeypatch, capfd, "study", "tiny.yaml", "--out", "results")
    assert code == 0, complaint
    lines = (study / "results/tiny.csv").read_text().splitlines()
    assert lines[0].startswith("objective,seed,settings,seconds,round,score,loss,")
    assert [line.split(",")[4] for line in lines[1:]] == ["0", "1", "2"] * 2
    assert "2 runs: 2 rounds, seeds 0" in (study / "results/tiny.md").read_text()
    code, printed, _ = command_line.run(monkeypatch, capfd, "study", "tiny.yaml", "--dry-run", "--out", "results")
    assert "2 runs of 2 rounds, 0 to run: nothing to run" in printed
    raw["measure"]["moments"] = 3  # rounds may grow: the two that are done are not all of them
    (study / "tiny.yaml").write_text(write_yaml({**raw, "x": "round"}))
    code, printed, _ = command_line.run(monkeypatch, capfd, "study", "tiny.yaml", "--dry-run", "--out", "results")
    assert "2 runs of 3 rounds, 2 to run" in printed


def test_a_study_that_is_terminated_ends_its_runs(study):
    long = read_mapping(study / "tiny.yaml")
    long["base"]["train"]["num_steps"] = 20_000
    (study / "tiny.yaml").write_text(write_yaml(long))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(study), *sys.path])}
    command = [sys.executable, "-m", "sipo", "study", "tiny.yaml", "--out", "results"]
    process = subprocess.Popen(command, cwd=study, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    metrics = study / "runs/studies/tiny/dpo_seed0/metrics.jsonl"
    try:
        wait_for(lambda: metrics.is_file() and b'"train"' in metrics.read_bytes(), process)
        process.terminate()
        process.wait(60)
        saved = [path.name for path in (metrics.parent / "checkpoints").iterdir()]
        last = metrics.read_bytes()
        time.sleep(1.0)
        assert saved  # the run was told, and saved
        assert metrics.read_bytes() == last  # and takes no further step
    finally:
        process.terminate()
        process.wait()


def wait_for(true, process, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < end
        time.sleep(0.1)
