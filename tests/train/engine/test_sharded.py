"""Two processes that hold half of the network each train as one does that holds it all, and resume exactly."""

import signal
from itertools import pairwise

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from support.newer_checkpoints import NEWER
from support.runs import (
    EVENTS_OF_A_SAVE,
    QUIET,
    assert_close,
    assert_halves,
    assert_same_results,
    measured_step,
    second_refused,
    train_in_two,
)

from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint, saved_steps
from sipo.train.export import export
from sipo.train.loop import train

ORDINARY = [("sd", "lora"), ("sd", "full")]
MORE = [
    ("wan", "lora"),
    ("wan", "full"),
    ("flux", "lora"),
    ("flux", "full"),
    ("cogvideox-5b", "full"),
    ("sdxl", "full"),
    *((name, kind) for name in NEWER for kind in ("lora", "full")),
]


@pytest.mark.parametrize(
    ("family", "kind"), [*ORDINARY, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_two_shards_train_as_one_process(config_of, family, kind):
    assert train_in_two(config_of("sharded", family, kind), step=measured_step) == [0, 0]
    sharded = RunDir(config_of("sharded", family, kind)["run"])
    whole = train(parse_config(config_of("whole", family, kind, "none", processes=1)), QUIET)
    assert_close(sharded, whole)
    assert_halves(sharded)


@pytest.mark.parametrize(("family", "kind"), [("sd", "full"), pytest.param("wan", "lora", marks=pytest.mark.slow)])
def test_gathered_from_forward_to_backward_it_computes_the_same(config_of, family, kind):
    """`grads` against `full`, which frees every block after its forward: samples and validation in between, an average
    that is swapped in and out, and a refused update must not see stale weights."""
    runs = []
    for sharding in ("full", "grads"):
        raw = config_of(sharding, family, kind, sharding, validate_every=1, sample_every=1, num_steps=4)
        raw["data"] |= {"validation": 0.3}
        assert train_in_two(raw, step=second_refused) == [0, 0]
        runs.append(RunDir(raw["run"]))
    assert_same_results(*runs, steps=[1, 2, 3, 4])
    checkpoints = [load_checkpoint(runs[1].checkpoints, step) for step in (1, 2, 3, 4)]
    same = [all(a.weights[n].equal(b.weights[n]) for n in a.weights) for a, b in pairwise(checkpoints)]
    assert same == [True, False, False]
    assert {float(state["step"]) for state in checkpoints[-1].optimizer["state"].values()} == {3.0}


@pytest.mark.parametrize(("kind", "accumulation"), [("lora", 2), pytest.param("full", 1, marks=pytest.mark.slow)])
def test_killed_inside_a_checkpoint_and_resumed(config_of, kind, accumulation):
    keys = {"num_steps": 4, "checkpoint_every": 2, "gradient_accumulation": accumulation, "validate_every": 2,
            "sample_every": 2, "learning_rate": 1e-3, "epsilon": 1e-8}  # fmt: skip
    unbroken, killed = config_of("unbroken", "sd", kind, **keys), config_of("killed", "sd", kind, **keys)
    for raw in (unbroken, killed):
        raw["data"] |= {"validation": 0.3}
    assert train_in_two(unbroken) == [0, 0]
    died, other = train_in_two(killed, die=(0, EVENTS_OF_A_SAVE + 3))
    assert died == -signal.SIGKILL
    assert other != 0  # killed too, or ended by the broken connection before that
    assert saved_steps(RunDir(killed["run"]).checkpoints) == [2]
    assert train_in_two(killed) == [0, 0]
    runs = [RunDir(raw["run"]) for raw in (killed, unbroken)]
    assert_same_results(*runs, steps=[2, 4])
    assert len(list((runs[0].samples / "000004").glob("*.png"))) >= 2


@pytest.mark.parametrize(("family", "kind"), [("sd", "lora"), pytest.param("wan", "full", marks=pytest.mark.slow)])
def test_the_weights_are_the_policy_and_any_number_of_processes_reads_a_checkpoint(config_of, tmp_path, family, kind):
    raw = config_of("sharded", family, kind, ema_decay=None)
    assert train_in_two(raw) == [0, 0]
    run = RunDir(raw["run"])
    trained = load_checkpoint(run.checkpoints, 3).weights
    assert export(run, 2, tmp_path / "second") == 2
    inside = "" if kind == "lora" else "transformer"
    exported = [load_file(*(out / inside).glob("*.safetensors")) for out in (run.weights, tmp_path / "second")]
    assert exported[0].keys() == exported[1].keys()
    assert not all(exported[0][name].equal(exported[1][name]) for name in exported[0])

    if kind == "lora":
        pipeline = DiffusionPipeline.from_pretrained(raw["model"]["path"])
        pipeline.load_lora_weights(run.weights, adapter_name="default")
    else:
        pipeline = DiffusionPipeline.from_pretrained(run.weights)
    network = pipeline.unet if family == "sd" else pipeline.transformer
    assert type(network).__name__ in ("UNet2DConditionModel", "WanTransformer3DModel")
    theirs = network.state_dict()
    assert all(theirs[name].equal(weight) for name, weight in trained.items())

    grown = {**raw, "train": {**raw["train"], "num_steps": 4}}
    train(parse_config(grown), QUIET)  # one process, which holds it all
    assert [line["step"] for line in run.read_metrics("train")] == [1, 2, 3, 4]
    assert train_in_two({**grown, "train": {**grown["train"], "num_steps": 5}}) == [0, 0]
    before, after = (load_checkpoint(run.checkpoints, step) for step in (3, 5))
    assert before.weights.keys() == after.weights.keys()
    assert {float(state["step"]) for state in after.optimizer["state"].values()} == {5.0}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd", "flux", "wan"])
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(
    "keys", [{"gradient_checkpointing": True}, {"mixed_precision": "bf16"}], ids=lambda keys: next(iter(keys))
)
def test_with_gradient_checkpointing_and_in_half_precision(config_of, family, kind, keys):
    assert train_in_two(config_of("sharded", family, kind, **keys)) == [0, 0]
    sharded = RunDir(config_of("sharded", family, kind)["run"])
    whole = train(parse_config(config_of("whole", family, kind, "none", processes=1, **keys)), QUIET)
    if "gradient_checkpointing" in keys:
        assert_close(sharded, whole)
        return
    for line, other in zip(sharded.read_metrics("train"), whole.read_metrics("train"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-2)
        assert line["mse_policy_chosen"] == pytest.approx(other["mse_policy_chosen"], rel=1e-2)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=0.05)
    assert {weight.dtype for weight in load_checkpoint(sharded.checkpoints, 3).weights.values()} == {torch.float32}


@pytest.mark.parametrize("sharding", ["full", "grads"])
def test_one_process_has_nothing_to_shard(config_of, sharding):
    whole = train(parse_config(config_of("none", "sd", "lora", "none", processes=1)), QUIET)
    alone = train(parse_config(config_of(sharding, "sd", "lora", sharding, processes=1)), QUIET)
    mine, theirs = (load_checkpoint(run.checkpoints, 3) for run in (alone, whole))
    assert all(mine.weights[name].equal(theirs.weights[name]) for name in theirs.weights)
    assert mine.optimizer["param_groups"] == theirs.optimizer["param_groups"]


def test_a_damaged_shard_is_named(config_of):
    run = train(parse_config(config_of("run", "sd", "lora", processes=1, num_steps=1)), QUIET)
    (file,) = (run.checkpoints / "000001").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=file.name):
        load_checkpoint(run.checkpoints, 1)


def test_what_sharding_does_not_go_with(raw_config):
    for sharding in ("full", "grads"):
        for keys in ({"compile": True}, {"optimizer": "adamw8bit"}):
            with pytest.raises(UsageError, match=f"sharding: {sharding} goes with"):
                parse_config({**raw_config, "train": {"sharding": sharding, **keys}})
    with pytest.raises(
        UsageError, match=r"found 'zero2'; expected none, full or grads \(which replaces zero1 and zero2"
    ):
        parse_config({**raw_config, "train": {"sharding": "zero2"}})


@pytest.mark.parametrize(("variable", "engine"), [("DEEPSPEED", "DeepSpeed"), ("FSDP", "accelerate's FSDP plugin")])
def test_other_engines_are_refused(raw_config, monkeypatch, variable, engine):
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    with pytest.raises(UserError, match=f"{engine}.*sharding: full"):
        train(parse_config(raw_config), QUIET)
