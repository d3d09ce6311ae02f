"""Run trainings in processes of their own, one or two, so that they can be killed; compare what they leave."""

import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from support.ports import free_port
from torch.distributed.tensor import DTensor

from sipo.backbones import quiet_libraries
from sipo.config import parse_config
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint
from sipo.train.guard import Guard
from sipo.train.loop import Step, train
from sipo.train.step import accumulate, apply, take_step
from sipo.train.table import Update
from sipo.train.training import Training

QUIET = Console(quiet=True)
context = multiprocessing.get_context("forkserver")
# Imports cost seconds, forks do not. Python before 3.12.3 does not find this module there, but the package it does.
FAMILIES = (
    "stable_diffusion",
    "stable_diffusion_3",
    "flux",
    "flux_kontext",
    "qwen_image",
    "qwen_image_edit",
    "z_image",
    "flux2_klein",
    "cogvideox",
    "wan",
    "wan_i2v",
    "hunyuan_video_15",
    "ltx2",
)  # imported by name, when a checkpoint is opened
context.set_forkserver_preload(
    ["sipo.train.loop", "sipo.rounds.loop", *(f"sipo.backbones.{name}" for name in FAMILIES), "support.runs"]
)


def train_raw(raw: dict, step: Step | None = None, base_samples: Path | None = None) -> RunDir:
    return train(parse_config(raw), QUIET, step, base_samples)


def train_in_process(raw: dict, kill_in_save: int | None = None, kill_after_step: int | None = None) -> int:
    """The exit code of a training in a process of its own, which may be killed (see `kill_in_saves`), or once
    metrics.jsonl shows a step."""
    process = context.Process(target=one_rank, args=(raw, 0, 1, 0, kill_in_save, None))
    process.start()
    while kill_after_step is not None and process.is_alive():
        if any(line["step"] >= kill_after_step for line in RunDir(Path(raw["run"])).read_metrics("train")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    process.join(120)
    assert process.exitcode is not None, "the training hangs"
    return process.exitcode


def train_in_two(raw: dict, die: tuple[int, int] | None = None, step: Step | None = None) -> list[int]:
    """Exit codes of the two processes of a training. `die`: a rank and its `kill_in_saves`; the other one is ended."""
    kills = [die[1] if die and die[0] == rank else None for rank in range(2)]
    places = on_two_ports()
    processes = [context.Process(target=one_rank, args=(raw, *places[r], kills[r], step)) for r in range(2)]
    for process in processes:
        process.start()
    if die:
        processes[die[0]].join(120)
        processes[1 - die[0]].kill()  # as the launcher does
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    assert None not in codes, "the training hangs"
    return codes


def on_two_ports() -> list[tuple[int, int, int]]:
    """Rank, number of processes and port of each of two processes."""
    port = free_port()
    return [(rank, 2, port) for rank in range(2)]


def one_rank(raw: dict, rank: int, world: int, port: int, kill_in_save: int | None, step: Step | None) -> None:
    """Train as one of `world` processes."""
    as_rank(rank, world, port)
    if kill_in_save:
        kill_in_saves(kill_in_save)
    train_raw(raw, step)


def as_rank(rank: int, world: int, port: int) -> None:
    """Make this process one of `world`."""
    if world > 1:
        os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank),
                       "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    quiet_libraries()
    torch.set_num_threads(1)
    # A child of the fork server would start its data workers by it too, and each would import everything again.
    multiprocessing.set_start_method("fork", force=True)


# What the first process does to a checkpoint that does not count yet: open its tensors twice (sync, checksum), open the
# manifest, its folder, rename the manifest, rename the folder. The other ones only open their tensors.
EVENTS_OF_A_SAVE = 6
CLIP = 1e-4  # of gradients; a large epsilon and rate then make Adam's steps proportional to them, rounding included


def kill_in_saves(events: int) -> None:
    """SIGKILL this process at an event within the saves of its checkpoints (see `EVENTS_OF_A_SAVE`), counted from 1."""
    left = [events]

    def watch(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename") and isinstance(arguments[0], str | os.PathLike):
            parts = Path(arguments[0]).parts
            if "checkpoints" in parts and any(part.endswith(".tmp") for part in parts):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def recorded_step(t: Training, step: int, stop: bool) -> Update:
    """`take_step`, whose gradients, before clipping, the first process writes into the run's folder."""
    rows, ids = accumulate(t, step)
    if t.processes.is_main:
        grads = {name: weight.grad.clone() for name, weight in t.engine.policy.trainable.items()}
        save_file(grads, t.run.path / f"gradients-{step}.safetensors")
    return apply(t, step, rows, ids, stop)


def second_refused(t: Training, step: int, stop: bool) -> Update:
    """`take_step` with a guard that forbids the second update."""

    class Refusing(Guard):
        def allows(self, *args) -> bool:
            return super().allows(*args) and step != 2

    return take_step(replace(t, guard=Refusing(t.settings, scaled=False)), step, stop)


def measured_step(t: Training, step: int, stop: bool) -> Update:
    """`take_step`, which leaves in the run's folder how many bytes this process holds, and how many there are in all."""
    update = take_step(t, step, stop)
    found = {}
    for name, network in (("denoiser", t.engine.policy.denoiser), ("frozen_copy", t.engine.policy.frozen_copy)):
        if network is not None:
            weights = list(network.parameters())
            found[name] = [
                sum(w.to_local().nbytes if isinstance(w, DTensor) else w.nbytes for w in weights),
                sum(w.numel() * w.itemsize for w in weights),
            ]
    (t.run.path / f"held-{t.processes.rank}.json").write_text(json.dumps(found))
    return update


def assert_same_results(run: RunDir, expected: RunDir, steps: list[int]) -> None:
    """Weights, optimizer and moving average of every kept step, metrics except times, samples, and the final weights."""
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


def assert_close(run: RunDir, expected: RunDir, tolerance: float = 1e-4) -> None:
    """Metrics of every step; weights and averages after the last one, within `tolerance` of what two steps changed."""
    lines, others = run.read_metrics("train"), expected.read_metrics("train")
    assert len(lines) == len(others) == 3
    for key in ("loss", "grad_norm", "reward_gap", "mse_policy_chosen", "mse_reference_rejected"):
        # The gap is 10 times (beta H) a difference of errors near 1, of which float32 rounds each by up to 1.2e-7.
        atol = 2.5e-6 if key == "reward_gap" else 1e-6
        np.testing.assert_allclose([l[key] for l in lines], [l[key] for l in others], rtol=tolerance, atol=atol)
    assert all(line["grad_norm"] > 10 * CLIP for line in lines)
    mine, theirs, before = (
        load_checkpoint(r.checkpoints, step) for r, step in ((run, 3), (expected, 3), (expected, 1))
    )
    for a, b, c in ((mine.weights, theirs.weights, before.weights), (mine.ema, theirs.ema, before.ema)):
        assert a.keys() == b.keys()
        changed = max((b[name] - c[name]).abs().max() for name in b)
        assert changed > 1e-5
        for name in a:
            assert (a[name] - b[name]).abs().max() <= tolerance * changed + 2e-7, name  # two roundings of a 1


def assert_halves(run: RunDir) -> None:
    for rank in range(2):
        for here, everywhere in json.loads((run.path / f"held-{rank}.json").read_text()).values():
            assert 0.4 < here / everywhere < 0.6
