"""Two processes that hold half of the network each train as one does that holds it all, and resume exactly."""

import json
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import FAMILIES
from trainings import context

from sipo.config import parse_config
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint
from sipo.train.loop import train

QUIET = Console(quiet=True)
CLIP = 1e-4  # of gradients; a large epsilon and rate then make Adam's steps proportional to them, rounding included


def one_rank(raw: dict, rank: int, world: int, port: int, die_in_save: int | None) -> None:
    """Train as one of `world` processes; leave a report of what it held. Rank 1 may die in its n-th checkpoint."""
    os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    import torch.distributed.checkpoint as dcp

    import sipo.train.loop as loop
    from sipo.backbones.quiet import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    make, aligns, save, left = loop.align_of, [], dcp.save, [die_in_save]

    def spy(*args):
        aligns.append(make(*args))
        return aligns[-1]

    def save_and_die(*args, **keys):
        save(*args, **keys)
        left[0] = left[0] and left[0] - 1
        if rank == 1 and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.align_of, dcp.save = spy, save_and_die
    loop.train(parse_config(raw), QUIET)
    (Path(raw["run"]) / f"held-{rank}.json").write_text(json.dumps(held(aligns[0].policy)))


def held(policy) -> dict[str, list[int]]:
    """Bytes here and in all, of the network and of its frozen copy."""
    found = {}
    for name, network in (("denoiser", policy.denoiser), ("frozen_copy", policy.frozen_copy)):
        if network is not None:
            weights = list(network.parameters())
            found[name] = [sum(w.to_local().nbytes for w in weights), sum(w.numel() * w.itemsize for w in weights)]
    return found


def train_in_two(raw: dict, die_in_save: int | None = None, world: int = 2) -> list[int]:
    """Exit codes of the processes of a training. Where one dies, the others are ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=one_rank, args=(raw, r, world, port, die_in_save)) for r in range(world)]
    for process in processes:
        process.start()
    if die_in_save:
        processes[1].join(120)
        processes[0].kill()  # as the launcher does
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    assert None not in codes, "the training hangs"
    return codes


@pytest.fixture
def config_of(raw_config, tiny_family, video_pairs, tmp_path):
    """(run, family, kind, sharding, **train) -> a config of 3 steps of 4 pairs, in two micro-steps."""

    def make(run: str, family: str, kind: str, sharding: str = "full", processes: int = 2, **keys) -> dict:
        data = {**raw_config["data"], **FAMILIES[family][1]}
        if family in ("wan", "cogvideox-5b"):
            data["path"] = str(video_pairs)
        keys = {"num_steps": 3, "batch_size": 2 // processes, "gradient_accumulation": 2, "checkpoint_every": 1,
                "keep_checkpoints": 9, "ema_decay": 0.5, "sharding": sharding, "max_grad_norm": CLIP,
                "epsilon": 0.01, "learning_rate": 1.0, **keys}  # fmt: skip
        return {**raw_config, "run": str(tmp_path / run), "model": {"path": str(tiny_family(family))}, "data": data,
                "policy": {"kind": kind, "rank": 4, "alpha": 8}, "train": {**raw_config["train"], **keys},
                "loss": {"name": "sipo", "beta": 0.01, "prune_threshold": 0.0}}  # fmt: skip

    return make


def assert_close(run: RunDir, expected: RunDir, tolerance: float = 1e-4) -> None:
    """Metrics of every step; weights and averages after the last one, within `tolerance` of what two steps changed."""
    lines, others = run.read_metrics("train"), expected.read_metrics("train")
    assert len(lines) == len(others) == 3
    for key in ("loss", "grad_norm", "reward_gap", "mse_policy_chosen", "mse_reference_rejected"):
        np.testing.assert_allclose([l[key] for l in lines], [l[key] for l in others], rtol=tolerance, atol=1e-6)
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


ORDINARY = [("sd", "lora"), ("sd", "full")]
MORE = [
    ("wan", "lora"),
    ("wan", "full"),
    ("flux", "lora"),
    ("flux", "full"),
    ("cogvideox-5b", "full"),
    ("sdxl", "full"),
]


@pytest.mark.parametrize(
    ("family", "kind"), [*ORDINARY, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_two_shards_train_as_one_process_and_the_weights_come_out(config_of, family, kind):
    assert train_in_two(config_of("sharded", family, kind)) == [0, 0]
    sharded = RunDir(config_of("sharded", family, kind)["run"])
    whole = train(parse_config(config_of("whole", family, kind, "none", processes=1)), QUIET)
    assert_close(sharded, whole)
    assert_halves(sharded)
