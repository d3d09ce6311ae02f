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
        stop.waits = True
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_before_the_first_step_every_signal_is_answered_at_once(number):
    before = signal.getsignal(number)
    with StopRequest(), pytest.raises(KeyboardInterrupt, match="kept for the next start"):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_closed_terminal_is_a_request():
    with StopRequest() as stop:
        stop.waits = True
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.requested


def test_ctrl_c_while_encoding_is_answered_at_once_and_finished_shards_stay(raw_config, tmp_path, monkeypatch):
    """The signal arrives while the second shard is encoded; the next start encodes the others alone."""
    from rich.console import Console
    from support.configs import changed

    from sipo.config import parse_config
    from sipo.data.cache import encode, plan
    from sipo.train.loop import train

    written, write = [], encode.write_shard

    def write_and_interrupt(path, name, content):
        if len(written) == 1 and not os.environ.get("SIPO_TEST_SECOND_START"):
            os.kill(os.getpid(), signal.SIGTERM)
        write(path, name, content)
        written.append(name)

    monkeypatch.setattr(encode, "write_shard", write_and_interrupt)
    monkeypatch.setattr(plan.EncodeRequest, "pairs_per_shard", 8)
    raw = changed(raw_config, f"data.cache={tmp_path / 'cache'}", "train.num_steps=1")
    with pytest.raises(KeyboardInterrupt, match="before the first step"):
        train(parse_config(raw), Console(quiet=True))
    assert len(written) == 1
    monkeypatch.setenv("SIPO_TEST_SECOND_START", "1")
    train(parse_config(raw), Console(quiet=True))
    assert len(written) == len(set(written)) > 1


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
