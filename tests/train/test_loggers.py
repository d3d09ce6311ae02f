"""What reaches TensorBoard (read back by its own reader), wandb and trackio (stand-ins that write down their calls)."""

import sys
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sipo.config import parse_config
from sipo.errors import UserError
from sipo.run import RunDir
from sipo.train.loggers import Loggers
from sipo.train.loop import train


class Service:
    """A module and its run in one."""

    def __init__(self):
        self.begun, self.lines, self.finished = [], [], 0

    def init(self, **options):
        self.begun.append(options)
        return self

    def define_metric(self, name, step_metric):
        self.axis = name, step_metric

    def log(self, scalars, step=None):
        self.lines.append((scalars, step))

    def finish(self):
        self.finished += 1


def line(step: int, loss: float) -> dict:
    bins = {"edges": [0, 500, 1000], "count": [2, 0], "w_chosen": [0.9, None]}
    return {"kind": "train", "step": step, "loss": loss, "seconds": {"total": 0.5}, "bins": bins}


@pytest.fixture
def opened(raw_config, tmp_path, monkeypatch):
    """`opened(step, name)`: the loggers of a run with that service alone, as they open after that step."""
    run = RunDir(tmp_path / "mine")
    run.path.mkdir()

    def open_loggers(step: int, name: str) -> Loggers:
        log = {"tensorboard": name == "tensorboard", **({name: "project"} if name != "tensorboard" else {})}
        return Loggers(run, parse_config({**raw_config, "run": str(run.path), "log": log}), step)

    return open_loggers


def test_tensorboard_after_a_resume_has_every_step_once(opened, tmp_path):
    before = opened(0, "tensorboard")
    for step in (1, 2, 3):
        before.write(line(step, 1.0))
    before.close()
    after = opened(2, "tensorboard")  # killed after step 3, resumed from the checkpoint of step 2
    for step in (3, 4):
        after.write(line(step, 2.0))
    after.close()
    events = EventAccumulator(str(tmp_path / "mine" / "tensorboard")).Reload()
    assert {(event.step, event.value) for event in events.Scalars("train/loss")} == {(1, 1), (2, 1), (3, 2), (4, 2)}
    assert len(events.Scalars("train/loss")) == 4
    assert {event.value for event in events.Scalars("train/seconds/total")} == {0.5}
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/seconds/total", "bins/w_chosen/t000"}  # None: no pair


def test_wandb_goes_on_by_an_id_in_the_run_directory(opened, tmp_path, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    for step in (0, 5):
        loggers = opened(step, "wandb")
        loggers.write(line(step + 1, 1.0))
        loggers.close()
    first, second = service.begun
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert (first["project"], first["name"], first["dir"]) == ("project", "mine", str(tmp_path / "mine"))
    assert first["config"]["loss"]["name"] == "sipo"
    assert service.axis == ("*", "step")
    assert [scalars["step"] for scalars, _ in service.lines] == [1, 6]
    assert service.finished == 2
    opened(0, "wandb")  # begun anew, in the same place
    assert service.begun[2]["id"] != first["id"]


def test_trackio_goes_on_by_name_after_a_checkpoint_alone(opened, monkeypatch):
    service = Service()
    monkeypatch.setitem(sys.modules, "trackio", service)
    for step in (0, 5):
        opened(step, "trackio").write(line(step + 1, 1.0))
    assert [begun["resume"] for begun in service.begun] == ["never", "allow"]
    assert [step for _, step in service.lines] == [1, 6]
    assert service.lines[0][0] == {"train/loss": 1.0, "train/seconds/total": 0.5, "bins/w_chosen/t000": 0.9}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_that_is_not_installed_stops_before_any_work(raw_config, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install 'sipo\[{name}\]'"):
        train(parse_config({**raw_config, "log": {name: "project"}}), Console(quiet=True))
    assert not Path(raw_config["run"]).exists()
