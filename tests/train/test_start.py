"""A policy that starts from another run's weights: they are p_old, and the reference is the model or they themselves."""

import json
from dataclasses import replace

import pytest
import torch
from support.configs import changed
from support.runs import assert_same_results, train_in_process, train_in_two, train_raw

from sipo.backbones import load_backbone
from sipo.config import ModelConfig, PolicyConfig, parse_config
from sipo.errors import UsageError, UserError
from sipo.plan.gpus import named_gpu
from sipo.plan.plan import make_plan
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint
from sipo.train.policy import make_policy

KINDS = ["lora", "full"]


@pytest.fixture
def first(raw_config, tmp_path):
    """(kind) -> a run of two steps, from whose weights others start."""

    def make(kind: str) -> RunDir:
        return train_raw(changed(raw_config, f"run={tmp_path / 'first'}", f"policy.kind={kind}", "train.num_steps=2"))

    return make


def second(raw_config, first: RunDir, kind: str, *overrides: str) -> dict:
    return changed(raw_config, f"policy.kind={kind}", f"policy.start={first.path}", "train.num_steps=2",
                   "weight={denominator: old, estimate: expected}", *overrides)  # fmt: skip


def predict(backbone, network):
    xt = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return backbone.predict(network, xt, torch.tensor([3, 700]), backbone.encode_prompts(["a", "b"]))


@pytest.mark.parametrize("reference", ["base", "start"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_are_those_that_their_names_say(first, tiny_sd, kind, reference):
    run = first(kind)
    trained = load_checkpoint(run.checkpoints, 2).weights
    backbone = load_backbone(ModelConfig(str(tiny_sd)))
    base = predict(backbone, backbone.denoiser)
    config = PolicyConfig(kind, 4, 4, start=str(run.weights), reference=reference)
    weights = backbone.read_weights(config, run.weights)
    assert weights.keys() == trained.keys()
    assert all(weights[name].equal(trained[name]) for name in trained)
    policy = make_policy(backbone, config, True, 0, needs_old=True, start=weights)
    started = predict(backbone, policy.denoiser)
    assert not started.equal(base)
    assert policy.trainable.keys() == trained.keys()
    with torch.no_grad():
        for weight in policy.trainable.values():
            weight.add_(0.05)
    moved = predict(backbone, policy.denoiser)
    with policy.network("reference") as network:
        assert predict(backbone, network).equal(base if reference == "base" else started)
    with policy.network("old") as network:
        assert predict(backbone, network).equal(started)
    assert predict(backbone, policy.denoiser).equal(moved)
    assert {n for n, weight in policy.denoiser.named_parameters() if weight.requires_grad} == trained.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_against_the_old_policy_the_weight_starts_at_one_and_the_rewards_do_not_at_zero(raw_config, first, kind):
    start = first(kind)
    run = train_raw(second(raw_config, start, kind))
    line, after = run.read_metrics("train")
    assert line["w_chosen"] == line["w_rejected"] == 1.0
    assert line["tie"] == 0.0  # the reference is the model, from which the start has moved away
    assert after["w_chosen"] != 1.0


def test_with_the_start_as_reference_it_starts_at_a_tie_and_needs_no_third_network(raw_config, first):
    raw = second(raw_config, first("lora"), "lora", "policy.reference=start")
    assert (parse_config(raw).needs_reference, parse_config(raw).needs_old) == (True, False)
    line = train_raw(raw).read_metrics("train")[0]
    assert line["tie"] == 1.0
    assert line["w_chosen"] == 1.0


def test_which_networks_a_config_needs(raw_config):
    needs = lambda *keys: (lambda c: (c.needs_reference, c.needs_old))(parse_config(changed(raw_config, *keys)))  # noqa: E731
    old = "weight.denominator=old"
    assert needs(old) == (True, False)
    assert needs(old, "policy.start=x") == (True, True)
    assert needs(old, "policy.start=x", "policy.reference=start") == (True, False)
    assert needs(old, "policy.start=x", "loss={name: sft}") == (False, False)
    assert needs(old, "policy.start=x", "loss={name: diffusion_dpo}") == (True, False)


def test_killed_and_resumed_it_ends_where_the_unbroken_one_ends(raw_config, first, tmp_path):
    raw = second(raw_config, first("lora"), "lora", "train.num_steps=4")
    unbroken, killed = (changed(raw, f"run={tmp_path / name}") for name in ("unbroken", "killed"))
    assert train_in_process(unbroken) == 0
    assert train_in_process(killed, kill_after_step=3) == -9
    assert train_in_process(killed) == 0
    assert_same_results(RunDir(killed["run"]), RunDir(unbroken["run"]), steps=[2, 4])


@pytest.mark.parametrize("sharding", ["none", "full", pytest.param("grads", marks=pytest.mark.slow)])
def test_two_processes_train_as_one(raw_config, first, tmp_path, sharding):
    raw = second(raw_config, first("lora"), "lora", "train.gradient_accumulation=2", "train.num_steps=3")
    one = train_raw(changed(raw, f"run={tmp_path / 'one'}"))
    assert train_in_two(
        changed(raw, f"run={tmp_path / 'two'}", f"train.sharding={sharding}", "train.batch_size=1")
    ) == [0, 0]
    lines = zip(one.read_metrics("train"), RunDir(tmp_path / "two").read_metrics("train"), strict=True)
    for mine, theirs in lines:
        for key in ("loss", "w_chosen", "w_rejected", "mse_policy_chosen", "mse_reference_chosen"):
            assert mine[key] == pytest.approx(theirs[key], rel=2e-4)


def test_full_fine_tuning_plans_for_a_third_network(raw_config, first):
    raw = second(raw_config, first("full"), "full")
    with_old = make_plan(parse_config(raw), named_gpu("h100"), [1])
    without = make_plan(parse_config(changed(raw, "policy.reference=start")), named_gpu("h100"), [1])
    memory = [plan.layouts[0].memory.reference for plan in (with_old, without)]
    assert memory[0] == 2 * memory[1] > 0
    assert with_old.step.reference_forward == 2 * without.step.reference_forward


def test_mistakes_are_named(raw_config, first, tiny_sd, tmp_path):
    run = first("lora")
    with pytest.raises(UsageError, match="reference: start needs the weights"):
        parse_config(changed(raw_config, "policy.reference=start"))
    nowhere = changed(raw_config, "model.path=nowhere", f"policy.start={tmp_path}")  # before the model is read
    with pytest.raises(UserError, match=r"policy.start: .* holds no weights of a run"):
        train_raw(nowhere)
    with pytest.raises(UserError, match=r"weights of kind lora; policy.kind is full"):
        train_raw(second(raw_config, run, "full"))
    with pytest.raises(UserError, match=r"have alpha 4; policy.alpha is 9"):
        train_raw(second(raw_config, run, "lora", "policy.alpha=9"))
    with pytest.raises(UserError, match=r"lora_A.* is 4 x .*; expected 8 x"):
        train_raw(second(raw_config, run, "lora", "policy.rank=8"))
    backbone = load_backbone(ModelConfig(str(tiny_sd)))
    file = run.weights / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"is not a whole \.safetensors file"):
        backbone.read_weights(replace(PolicyConfig(), alpha=4), run.weights)
    assert json.loads((run.weights / "sipo.json").read_text())["kind"] == "lora"
