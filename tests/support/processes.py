"""Train in two processes that hold half of something each, kill one of them, and compare with one process."""

import json
import os
import signal
import socket
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from support.runs import context
from torch.distributed.tensor import DTensor

from sipo.config import parse_config
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint
from sipo.train.guard import Guard

QUIET = Console(quiet=True)
CLIP = 1e-4  # of gradients; a large epsilon and rate then make Adam's steps proportional to them, rounding included


def one_rank(raw: dict, rank: int, world: int, port: int, die: tuple[int, int] | None, refused: int | None) -> None:
    """Train as one of `world` processes; leave a report of what it held.

    `die`: the rank that dies once it has written so many files of checkpoints, or shares of them. `refused`: a step
    whose update the guard forbids.
    """
    os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    import torch.distributed.checkpoint as dcp

    import sipo.train.checkpoint as whole_checkpoint
    import sipo.train.loop as loop
    from sipo.backbones.quiet import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    make, aligns, left = loop.align_of, [], [die[1] if die and die[0] == rank else 0]

    def spy(*args):
        aligns.append(make(*args))
        return aligns[-1]

    def and_die(save):
        def save_and_die(*args, **keys):
            save(*args, **keys)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        return save_and_die

    loop.align_of, dcp.save = spy, and_die(dcp.save)
    whole_checkpoint.save_file = and_die(whole_checkpoint.save_file)
    if refused:
        loop.Guard = guard_that_refuses(refused)
    loop.train(parse_config(raw), QUIET)
    (Path(raw["run"]) / f"held-{rank}.json").write_text(json.dumps(held(aligns[0].policy)))


def guard_that_refuses(refused: int) -> type[Guard]:
    class Refusing(Guard):
        def allows(self, step, *args):
            return super().allows(step, *args) and step != refused

    return Refusing


def held(policy) -> dict[str, list[int]]:
    """Bytes here and in all, of the network and of its frozen copy."""
    found = {}
    for name, network in (("denoiser", policy.denoiser), ("frozen_copy", policy.frozen_copy)):
        if network is not None:
            weights = list(network.parameters())
            found[name] = [
                sum(w.to_local().nbytes if isinstance(w, DTensor) else w.nbytes for w in weights),
                sum(w.numel() * w.itemsize for w in weights),
            ]
    return found


def train_in_two(raw: dict, die: tuple[int, int] | None = None, refused: int | None = None) -> list[int]:
    """Exit codes of the two processes of a training (see `one_rank`). Where one dies, the other is ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=one_rank, args=(raw, r, 2, port, die, refused)) for r in range(2)]
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
