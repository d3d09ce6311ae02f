"""A plan of a whole config, and the command."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from sipo.backbones import load_backbone
from sipo.cli import main
from sipo.config import ModelConfig, load_config, parse_config
from sipo.plan.gpus import GPUS
from sipo.plan.plan import make_plan
from sipo.plan.report import render, to_dict
from sipo.train.policy import make_policy

CONFIGS = Path(__file__).parents[2] / "configs"
H100 = GPUS["h100"]


def planned(raw: dict, num_gpus=(1,), gpu=H100, **changes):
    raw = copy.deepcopy(raw)
    for section, values in changes.items():
        raw[section] = {**raw.get(section, {}), **values}
    return make_plan(parse_config(raw), gpu, list(num_gpus))


def test_a_preference_step_is_a_step_over_both_members_and_a_reference(raw_config):
    plan = planned(raw_config)
    samples = 2 * 2  # two pairs
    assert plan.step.reference_forward == samples * plan.forward_flops
    assert plan.step.policy_forward > plan.step.reference_forward  # the adapters
    assert plan.step.recomputed == 0
    again = planned(raw_config, train={"gradient_checkpointing": True})
    assert 0 < again.step.recomputed <= again.step.policy_forward
    assert again.layouts[0].memory.activations == plan.checkpointed < plan.activations


def test_sft_needs_neither_reference_nor_rejected(raw_config):
    sft, dpo = planned({**raw_config, "loss": {"name": "sft"}}), planned(raw_config)
    assert sft.step.reference_forward == 0
    assert sft.step.policy_forward * 2 == dpo.step.policy_forward
    assert sft.activations * 2 == dpo.activations
    weighed = planned({**raw_config, "loss": {"name": "dpo_cm"}, "weight": {"denominator": "reference"}})
    assert weighed.step == dpo.step


def test_accumulation_repeats_the_work_not_the_memory(raw_config):
    one, four = planned(raw_config), planned(raw_config, train={"gradient_accumulation": 4})
    assert four.step.total == 4 * one.step.total
    assert four.layouts[0].memory == one.layouts[0].memory
    assert four.layouts[0].pairs == 8
    assert four.seconds == pytest.approx(four.step.total / 66.9e12)


def test_encoders_count_only_without_a_cache(raw_config):
    without, cached = planned(raw_config), planned(raw_config, data={"cache": "cache"})
    assert without.step.encoders > 0
    assert without.layouts[0].memory.encoders == 4 * without.encoder_parameters
    assert cached.step.encoders == cached.layouts[0].memory.encoders == 0


def test_full_fine_tuning_holds_masters_and_a_reference(raw_config):
    plan = planned(raw_config, policy={"kind": "full"}, train={"mixed_precision": "bf16", "ema_decay": 0.9})
    memory, n = plan.layouts[0].memory, plan.parameters
    assert plan.trained == n
    assert (memory.weights, memory.trained, memory.reference, memory.gradients, memory.average) == (
        0,
        4 * n,
        2 * n,
        4 * n,
        4 * n,
    )
    assert memory.optimizer == pytest.approx(8 * n, rel=0.02)
    assert 1.8 * n < memory.weight_copies <= 2 * n
    kept = planned({**raw_config, "loss": {"name": "sft"}}, policy={"kind": "full"})
    assert kept.layouts[0].memory.reference == kept.layouts[0].memory.weight_copies == 0


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_weights_are_those_of_the_real_policy(raw_config, tiny_sd, kind):
    plan = planned(raw_config, policy={"kind": kind}, train={"mixed_precision": "bf16"})
    config = parse_config({**raw_config, "policy": {**raw_config["policy"], "kind": kind}}).policy
    backbone = load_backbone(ModelConfig(str(tiny_sd)), dtype=torch.bfloat16)
    policy = make_policy(backbone, config, needs_reference=True, seed=0)
    frozen = [p for p in policy.denoiser.parameters() if not p.requires_grad]
    memory = plan.layouts[0].memory
    assert memory.weights == sum(p.nbytes for p in frozen)
    assert memory.trained == memory.gradients == sum(p.nbytes for p in policy.trainable.values())
    copied = policy.frozen_copy.parameters() if policy.frozen_copy else ()
    assert memory.reference == sum(p.nbytes for p in copied)


def test_several_gpus_copy_or_share(raw_config):
    plan = planned(raw_config, num_gpus=(1, 2), policy={"kind": "full"})
    assert [(layout.num_gpus, layout.kind) for layout in plan.layouts] == [(1, "single"), (2, "ddp"), (2, "sharded")]
    single, ddp, shared = (layout.memory for layout in plan.layouts)
    assert ddp.communication == single.gradients
    assert shared.trained == -(-single.trained // 2)
    assert 0 < shared.communication < 2 * single.trained


@pytest.mark.slow
def test_what_fits(raw_config):
    whole = planned({**raw_config, "model": {"path": "black-forest-labs/FLUX.1-dev"}}, num_gpus=(1, 8),
                    policy={"kind": "full"}, data={"cache": "c"},
                    train={"mixed_precision": "bf16", "gradient_checkpointing": True, "batch_size": 1})  # fmt: skip
    assert [whole.fits(layout) for layout in whole.layouts] == [False, False, True]
    assert whole.layouts[0].memory.total > 200 * 2**30


def test_the_command_on_a_config(tmp_path):
    out = tmp_path / "plan.json"
    command = [sys.executable, "-m", "sipo", "plan", str(CONFIGS / "miniature-sipo.yaml"), "train.batch_size=8",
               "data.prompt_dropout=1", "--gpus", "1,4", "--gpu", "rtx4090", "--json", str(out)]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "2,269,972 in the denoiser, 447,232 trained" in result.stdout
    assert "4 x rtx4090, sharded" in result.stdout
    assert "notice: data.prompt_dropout: 1 drops every prompt" in result.stdout
    made = json.loads(out.read_text())
    assert made["parameters"]["trained"] == 447_232
    assert [layout["pairs_per_step"] for layout in made["layouts"]] == [8, 32, 32]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--gpu", "rtx4900"], 2, "did you mean rtx4090?"),
        (["--gpus", "1,two"], 2, "should be numbers of GPUs"),
        (["--gpus", "0"], 2, "should be numbers of GPUs"),
        (["model.path=nobody/nothing"], 1, "nobody/nothing"),
        (["data.num_frames=5"], 2, "this model makes images"),
        (["data.resolution=65"], 1, "multiples of 4, such as 64 x 64"),
        (["model.dtype=bfloat16"], 2, "mixed_precision"),
    ],
)
def test_a_users_mistake_is_a_message(raw_config, tmp_path, monkeypatch, capsys, arguments, code, message):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(raw_config))
    monkeypatch.setattr(sys, "argv", ["sipo", "plan", str(config), *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == code
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_papers_settings_can_be_planned(capsys):
    for name in ("sd15-pickapic-sipo", "sdxl-pickapic-sipo"):
        plan = make_plan(load_config(CONFIGS / f"{name}.yaml"), H100, [16])
        render(plan, Console())
        assert "memory on each of 16 GPUs" in capsys.readouterr().out
        assert all(plan.fits(layout) for layout in plan.layouts)
        assert to_dict(plan)["layouts"][0]["pairs_per_step"] == 1024


@pytest.mark.parametrize("kind", ["int8", "fp8", pytest.param("nf4", marks=pytest.mark.nf4)])
def test_a_quantised_base_takes_the_bytes_of_a_training(raw_config, kind):
    raw = {**raw_config, "model": {**raw_config["model"], "quantize": kind}}
    raw["train"] = {**raw["train"], "mixed_precision": "bf16"}
    plan, plain = planned(raw), planned(raw, model={"quantize": None})
    config = parse_config(raw)
    backbone = load_backbone(config.model, dtype=torch.bfloat16)
    backbone.quantize()
    stored = sum(weight.nbytes for weight in backbone.denoiser.parameters())
    states = [layer.state for layer in backbone.denoiser.modules() if hasattr(layer, "state")]
    stored += sum(part.nbytes for s in states for part in (s.absmax, s.code, s.offset, s.state2.absmax, s.state2.code))
    assert plan.layouts[0].memory.weights == stored < plain.layouts[0].memory.weights
    assert (plan.step, plan.parameters, plan.trained) == (plain.step, plain.parameters, plain.trained)
