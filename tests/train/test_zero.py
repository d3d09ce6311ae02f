"""With DeepSpeed's optimizer two processes train as one does, skip, resume exactly, and leave what any number reads.

Where deepspeed is not installed these are deselected, not skipped: `make test-deepspeed` makes an environment for them.
"""

import signal
import sys
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support.processes import QUIET, assert_close, guard_that_refuses, train_in_two
from support.runs import assert_same_results

import sipo.train.loop as loop
from sipo.config import parse_config
from sipo.errors import UserError
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint, saved_steps
from sipo.train.loop import train
from sipo.train.zero import ZeroOptimizer


def test_without_deepspeed_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    with pytest.raises(UserError, match=r"pip install 'sipo\[deepspeed\]'"):
        ZeroOptimizer(adamw, 2, 1.0)


def test_one_process_needs_no_deepspeed(config_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    whole = train(parse_config(config_of("none", "sd", "lora", "none", processes=1)), QUIET)
    alone = train(parse_config(config_of("zero", "sd", "lora", "zero2", processes=1)), Console(quiet=True))
    mine, theirs = (load_checkpoint(run.checkpoints, 3) for run in (alone, whole))
    assert all(mine.weights[name].equal(theirs.weights[name]) for name in theirs.weights)


@pytest.mark.deepspeed
@pytest.mark.parametrize("sharding", ["zero1", "zero2"])
@pytest.mark.parametrize(("family", "kind"), [("sd", "lora"), ("sd", "full"), ("wan", "lora"), ("flux", "full")])
def test_two_processes_train_as_one(config_of, family, kind, sharding):
    zero = config_of("zero", family, kind, sharding)
    assert train_in_two(zero) == [0, 0]
    whole = train(parse_config(config_of("whole", family, kind, "none", processes=1)), QUIET)
    assert_close(RunDir(zero["run"]), whole)
    mine, theirs = (load_checkpoint(run.checkpoints, 3).optimizer for run in (RunDir(zero["run"]), whole))
    assert mine["param_groups"] == theirs["param_groups"]
    for index, state in theirs["state"].items():
        assert mine["state"][index]["step"] == state["step"]
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(mine["state"][index][key], state[key], rtol=1e-3, atol=1e-9)


@pytest.mark.deepspeed
@pytest.mark.parametrize("sharding", ["zero1", "zero2"])
@pytest.mark.parametrize("refused", [1, 2])
def test_an_update_that_the_guard_forbids_leaves_no_trace(config_of, monkeypatch, sharding, refused):
    zero = config_of("zero", "sd", "lora", sharding)
    assert train_in_two(zero, refused=refused) == [0, 0]
    monkeypatch.setattr(loop, "Guard", guard_that_refuses(refused))
    whole = train(parse_config(config_of("whole", "sd", "lora", "none", processes=1)), QUIET)
    mine, theirs = (load_checkpoint(run.checkpoints, 3) for run in (RunDir(zero["run"]), whole))
    assert {float(state["step"]) for state in mine.optimizer["state"].values()} == {2.0}
    for name, weight in theirs.weights.items():
        torch.testing.assert_close(mine.weights[name], weight, rtol=1e-3, atol=1e-6)
    kept = [load_checkpoint(RunDir(zero["run"]).checkpoints, step).weights for step in (1, 2, 3)]
    same = [all(before[n].equal(after[n]) for n in before) for before, after in pairwise(kept)]
    assert same == [refused == 2, False]


@pytest.mark.deepspeed
@pytest.mark.parametrize(("kind", "sharding"), [("lora", "zero1"), ("lora", "zero2"), ("full", "zero2")])
def test_killed_inside_a_checkpoint_and_resumed(config_of, kind, sharding):
    keys = {"num_steps": 4, "checkpoint_every": 2, "learning_rate": 1e-3, "epsilon": 1e-8, "weight_decay": 0.1}
    unbroken, killed = (config_of(name, "sd", kind, sharding, **keys) for name in ("unbroken", "killed"))
    assert train_in_two(unbroken) == [0, 0]
    assert train_in_two(killed, die=(0, 5)) == [-signal.SIGKILL] * 2  # 3 files each: the second one is not whole
    assert saved_steps(RunDir(killed["run"]).checkpoints) == [2]
    assert train_in_two(killed) == [0, 0]
    assert_same_results(RunDir(killed["run"]), RunDir(unbroken["run"]), steps=[2, 4])


@pytest.mark.deepspeed
def test_any_number_of_processes_goes_on(config_of):
    raw = config_of("zero", "sd", "lora", "zero2", ema_decay=None)
    assert train_in_two(raw) == [0, 0]
    run = RunDir(raw["run"])
    (file,) = run.weights.glob("*.safetensors")
    exported = load_file(file).values()
    trained = load_checkpoint(run.checkpoints, 3).weights.values()
    assert sum(float(weight.norm() ** 2) for weight in exported) == pytest.approx(
        sum(float(weight.norm() ** 2) for weight in trained), rel=1e-6
    )
    train(parse_config({**raw, "train": {**raw["train"], "num_steps": 4}}), QUIET)  # one process, without DeepSpeed
    assert train_in_two({**raw, "train": {**raw["train"], "num_steps": 5}}) == [0, 0]
    after = load_checkpoint(run.checkpoints, 5)
    assert {float(state["step"]) for state in after.optimizer["state"].values()} == {5.0}


@pytest.mark.deepspeed
@pytest.mark.parametrize(("family", "kind"), [("flux", "lora"), ("wan", "full")])
def test_in_half_precision(config_of, family, kind):
    keys = {"mixed_precision": "bf16", "gradient_checkpointing": True}
    zero = config_of("zero", family, kind, "zero2", **keys)
    assert train_in_two(zero) == [0, 0]
    whole = train(parse_config(config_of("whole", family, kind, "none", processes=1, **keys)), QUIET)
    for line, other in zip(RunDir(zero["run"]).read_metrics("train"), whole.read_metrics("train"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-2)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=0.05)
    assert {w.dtype for w in load_checkpoint(RunDir(zero["run"]).checkpoints, 3).weights.values()} == {torch.float32}
