"""Stopping by a signal saves."""

import os
import signal

import pytest

from sipo.run import RunDir
from sipo.train.checkpoint import saved_steps
from sipo.train.loop import StopRequest


def test_the_first_signal_asks_and_the_second_acts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore it
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_a_stopped_training_saves_and_goes_on(raw_config, tmp_path):
    import threading
    import time

    from rich.console import Console
    from support.runs import assert_same_results

    from sipo.config import parse_config
    from sipo.errors import Stopped
    from sipo.train.loop import train

    raw = {**raw_config, "train": {**raw_config["train"], "num_steps": 30, "checkpoint_every": 1000}}
    unbroken = train(parse_config({**raw, "run": str(tmp_path / "unbroken")}), Console(quiet=True))
    run = RunDir(raw["run"])

    def ask_when_it_runs():
        while not run.read_metrics("train"):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask_when_it_runs).start()
    with pytest.raises(Stopped, match="The same command resumes"):
        train(parse_config(raw), Console(quiet=True))
    (step,) = saved_steps(run.checkpoints)
    assert 0 < step < 30
    train(parse_config(raw), Console(quiet=True))
    assert_same_results(run, unbroken, steps=[30])
