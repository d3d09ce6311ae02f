"""Run trainings in processes of their own, so that they can be killed, and compare what they leave."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file

import sipo.train.checkpoint as checkpoint_module
from sipo.config import parse_config
from sipo.run import RunDir

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["support.runs", "sipo.train.loop"])  # imports cost seconds, forks do not


def run_training(raw: dict, kill_in_save: int | None = None) -> RunDir:
    """Train to the end; with `kill_in_save`, SIGKILL this process as soon as so many checkpoint files are written."""
    import torch

    from sipo.backbones.quiet import quiet_libraries
    from sipo.train.loop import train

    quiet_libraries()
    torch.set_num_threads(1)
    # A child of the fork server would start its data workers by it too, and each would import everything again.
    multiprocessing.set_start_method("fork", force=True)
    if kill_in_save:
        save, left = checkpoint_module.save_file, [kill_in_save]

        def save_and_die(*args, **kwargs):
            save(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint_module.save_file = save_and_die
    return train(parse_config(raw), Console(quiet=True))


def train_in_process(raw: dict, kill_in_save: int | None = None, kill_after_step: int | None = None) -> int:
    """The exit code of a training in a process of its own, which may be killed once metrics.jsonl shows a step."""
    process = context.Process(target=run_training, args=(raw, kill_in_save))
    process.start()
    while kill_after_step is not None and process.is_alive():
        if any(line["step"] >= kill_after_step for line in RunDir(Path(raw["run"])).read_metrics("train")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    process.join(120)
    assert process.exitcode is not None, "the training hangs"
    return process.exitcode


def assert_same_results(run: RunDir, expected: RunDir, steps: list[int]) -> None:
    """Weights, optimizer and moving average of every kept step, metrics but for wall-clock, samples, what came out."""
    for step in steps:
        names = {file.name for file in (expected.checkpoints / f"{step:06d}").iterdir()}
        assert {file.name for file in (run.checkpoints / f"{step:06d}").iterdir()} == names
        for name in names - {"manifest.json"}:
            mine, theirs = (load_file(r.checkpoints / f"{step:06d}" / name) for r in (run, expected))
            assert mine.keys() == theirs.keys()
            assert all(mine[key].equal(theirs[key]) for key in mine), f"{name} of step {step} differs"
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in r.read_metrics()] for r in (run, expected)]
    assert lines[0] == lines[1]
    for file in expected.samples.rglob("*.png"):
        assert (run.samples / file.relative_to(expected.samples)).read_bytes() == file.read_bytes()
    for file in expected.weights.rglob("*.safetensors"):
        mine, theirs = load_file(run.weights / file.relative_to(expected.weights)), load_file(file)
        assert mine.keys() == theirs.keys()
        assert all(mine[key].equal(theirs[key]) for key in mine), f"{file.name} differs"
