"""The run directory: its record, its lock, its comparison of configs."""

import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.run import RunDir, environment

RAW = {"run": "r", "model": {"path": "m"}, "data": {"path": "d"}, "loss": {"name": "sipo"}}


def config(**train):
    return parse_config({**RAW, "train": train})


def test_only_growth_of_steps_is_the_same_config(tmp_path):
    run = RunDir(tmp_path)
    run.require_same_config(config(), has_checkpoint=True)  # nothing there yet
    run.write_config(config(num_steps=10))
    run.require_same_config(config(num_steps=11), has_checkpoint=True)
    run.require_same_config(config(num_steps=9, seed=3), has_checkpoint=False)
    with pytest.raises(UsageError, match=r"(?s)train.num_steps: 10 .* 9 now.*train.seed: 0 in the run, 3 now"):
        run.require_same_config(config(num_steps=9, seed=3), has_checkpoint=True)


def test_a_moved_run_is_the_same_run(tmp_path):
    RunDir(tmp_path).write_config(config())
    RunDir(tmp_path).require_same_config(parse_config({**RAW, "run": "elsewhere"}), has_checkpoint=True)


def take_lock(path) -> None:
    with RunDir(path).lock():
        pass


def test_one_training_at_a_time(tmp_path):
    with ProcessPoolExecutor(1, get_context("fork")) as other:
        with RunDir(tmp_path).lock(), pytest.raises(UserError, match="in use by another training"):
            other.submit(take_lock, tmp_path).result()
        other.submit(take_lock, tmp_path).result()


def lock_fork_and_die(path) -> None:
    with RunDir(path).lock():
        get_context("fork").Process(target=time.sleep, args=(5,)).start()
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_workers_of_a_killed_training_do_not_hold_its_lock(tmp_path):
    training = get_context("fork").Process(target=lock_fork_and_die, args=(tmp_path,))
    training.start()
    training.join()
    assert training.exitcode == -signal.SIGKILL
    take_lock(tmp_path)


def test_a_torn_line_ends_the_metrics(tmp_path):
    RunDir(tmp_path).metrics.write_text('{"kind": "train", "step": 1}\n{"kind": "validation", "step": 1}\n{"kind": "tr')
    assert [line["kind"] for line in RunDir(tmp_path).read_metrics()] == ["train", "validation"]
    assert RunDir(tmp_path).read_metrics("train") == [{"kind": "train", "step": 1}]


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        RunDir(tmp_path).require()


def test_environment_names_what_matters():
    found = environment("cpu", 1)
    assert found["packages"]["torch"]
    assert found["num_threads"] >= 1


@pytest.fixture
def done(tmp_path):
    """A run of 4 steps that is complete."""
    run = RunDir(tmp_path / "r")
    run.write_config(config(num_steps=4))
    for file, content in (
        (run.checkpoints / "000004" / "manifest.json", "{}"),
        (run.weights / "sipo.json", '{"step": 4}'),
    ):
        file.parent.mkdir(parents=True)
        file.write_text(content)
    return run


def test_a_run_is_complete_with_its_last_checkpoint_and_the_weights_of_that_step(done):
    assert done.is_complete(config(num_steps=4))
    best = {"scorer": "brightness"}
    for other in (config(num_steps=5), config(num_steps=4, seed=1), config(num_steps=4, keep_best=best)):
        assert not done.is_complete(other)
    (done.weights / "sipo.json").write_text('{"step": 2}')  # grown, and killed before the new weights were written
    assert not done.is_complete(config(num_steps=4))


@pytest.mark.parametrize("missing", ["config.yaml", "checkpoints/000004/manifest.json", "weights/sipo.json"])
def test_a_run_without_one_of_its_files_is_not_complete(done, missing):
    (done.path / missing).unlink()
    assert not done.is_complete(config(num_steps=4))


def test_a_report_is_current_until_another_file_is_written(done):
    assert not done.has_current_report()
    done.report.write_text("")
    assert done.has_current_report()
    (done.path / "evaluation").mkdir()
    (done.path / "evaluation" / "scores.jsonl").write_text("")
    os.utime(done.path / "evaluation" / "scores.jsonl", (time.time() + 9, time.time() + 9))
    assert not done.has_current_report()
