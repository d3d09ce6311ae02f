"""Adapters trained on a quantised base: the same as on a plain base of its numbers, near those on the base itself."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from support.configs import changed
from support.runs import train_in_two, train_raw
from torch import nn

from sipo.backbones.quantize import QuantizedLinear
from sipo.config import parse_config
from sipo.errors import UsageError
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint
from sipo.train.export import export
from sipo.train.step import take_step

KINDS = ["int8", pytest.param("fp8", marks=pytest.mark.slow), pytest.param("nf4", marks=pytest.mark.nf4)]
# Relative, of the errors of policy and reference and of the norm of the gradients; stated in docs/training.md.
TOLERANCE = {"int8": (0.002, 0.01), "fp8": (0.01, 0.07), "nf4": (0.03, 0.15)}


@pytest.fixture
def config(family_config):
    """(run, quantize) -> a config of three steps of SIPO on a tiny FLUX."""

    def make(run: str, kind: str | None, *more: str) -> dict:
        loss = "loss={name: sipo, beta: 0.01, prune_threshold: 0.0}"
        return changed(family_config(run, "flux", "lora"), loss, f"model.quantize={kind or 'null'}", *more)

    return make


def trained(raw: dict, at_start=lambda denoiser: None) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """The lines of training and the adapters after the last step. at_start: what becomes of the denoiser before the first."""

    def step(t, number, stop):
        if number == 1:
            at_start(t.engine.policy.denoiser)
        return take_step(t, number, stop)

    run = train_raw(raw, step)
    return run.read_metrics("train"), load_checkpoint(run.checkpoints, raw["train"]["num_steps"]).weights


@pytest.mark.parametrize("kind", KINDS)
def test_as_on_a_plain_base_of_the_same_numbers_to_the_last_bit(config, kind):
    numbers: dict[str, torch.Tensor] = {}

    def remember(denoiser):
        layers = {n: m for n, m in denoiser.named_modules() if isinstance(m, QuantizedLinear)}
        numbers.update({name: layer.dequantized(torch.float32) for name, layer in layers.items()})

    def put_in(denoiser):
        with torch.no_grad():
            for name, weight in numbers.items():
                denoiser.get_submodule(name).weight.copy_(weight)

    lines, weights = trained(config("quantised", kind), remember)
    plain, same = trained(config("plain", None), put_in)
    assert len(numbers) > 10
    for key in ("loss", "grad_norm", "mse_reference_chosen", "mse_policy_rejected"):
        assert [line[key] for line in lines] == [line[key] for line in plain], key
    assert weights.keys() == same.keys()
    assert all(weight.equal(same[name]) for name, weight in weights.items())
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_near_the_plain_training_and_resumed_as_it_was(config, kind):
    plain, _ = trained(config("plain", None))
    lines, weights = trained(config("quantised", kind))
    of_errors, of_gradients = TOLERANCE[kind]
    for line, exact in zip(lines, plain, strict=True):
        for key in ("mse_policy_chosen", "mse_policy_rejected", "mse_reference_chosen"):
            assert line[key] == pytest.approx(exact[key], rel=of_errors)
        assert line["grad_norm"] == pytest.approx(exact["grad_norm"], rel=of_gradients)
    assert lines[0]["mse_policy_chosen"] != plain[0]["mse_policy_chosen"]
    halves = config("halves", kind)
    train_raw(changed(halves, "train.num_steps=2"))
    again, resumed = trained(halves)
    assert again[-1]["loss"] == lines[-1]["loss"]
    assert all(weight.equal(resumed[name]) for name, weight in weights.items())


@pytest.mark.parametrize(
    "name",
    ["wan", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd", "sdxl", "cogvideox-5b", "wan2.2-14b"))],
)
def test_every_family_trains_in_half_precision_with_samples(family_config, name):
    raw = changed(family_config("run", name, "lora"), "model.quantize=int8", "train.mixed_precision=bf16",
                  "train.num_steps=1", "train.sample_every=1", "train.gradient_checkpointing=true",
                  "loss={name: diffusion_dpo, beta: 0.01}")  # fmt: skip
    lines, _ = trained(raw)
    assert lines[0]["grad_norm"] > 0
    assert lines[0]["mse_policy_chosen"] == pytest.approx(lines[0]["mse_reference_chosen"], rel=1e-4)


def test_the_result_is_loaded_and_merged_into_the_base_as_it_was_published(config, tmp_path):
    raw = config("run", "int8", "train.num_steps=1", "train.learning_rate=0.1")
    run = train_raw(raw)
    assert "in int8" in (run.weights / "README.md").read_text()
    assert json.loads((run.weights / "sipo.json").read_text())["kind"] == "lora"
    export(RunDir(run.path), None, tmp_path / "merged", merge=True)
    merged = DiffusionPipeline.from_pretrained(tmp_path / "merged").transformer
    theirs = DiffusionPipeline.from_pretrained(raw["model"]["path"])
    theirs.load_lora_weights(run.weights)
    theirs.fuse_lora()
    theirs.unload_lora_weights()
    plain = theirs.transformer.state_dict()
    base = DiffusionPipeline.from_pretrained(raw["model"]["path"]).transformer.state_dict()
    assert not any(isinstance(module, QuantizedLinear) for module in merged.modules())
    for name, weight in merged.state_dict().items():
        assert torch.allclose(weight, plain[name], atol=1e-6), name
    assert any(not weight.equal(base[name]) for name, weight in merged.state_dict().items())


def test_a_run_does_not_change_its_bits(config):
    train_raw(config("run", "int8", "train.num_steps=1", "train.checkpoint_every=1"))
    with pytest.raises(UsageError, match=r"model.quantize: 'int8' in the run, 'fp8' now"):
        train_raw(config("run", "fp8"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.kind=full"], "model.quantize: int8 is for a frozen base under adapters.*policy.kind: lora"),
        (["train.sharding=full"], "model.quantize: int8 goes with train.sharding: none"),
        (["model.quantize=int4"], "model.quantize: found 'int4'; expected 'int8', 'fp8' or 'nf4'"),
    ],
)
def test_what_does_not_go_with_it_is_refused_as_the_config_is_read(raw_config, overrides, message):
    with pytest.raises(UsageError, match=message):
        parse_config(changed(raw_config, "model.quantize=int8", *overrides))


def test_only_linear_layers_of_the_denoiser_are_quantised(config):
    def look(denoiser):
        found.extend(type(m).__name__ for m in denoiser.modules() if isinstance(m, nn.Linear))

    found: list[str] = []
    trained(config("run", "int8", "train.num_steps=1"), look)
    assert set(found) == {"ByRow", "Linear"}  # the second kind are the adapters


@pytest.mark.slow
@pytest.mark.parametrize("switch", ["model.quantize=int8", "model.offload=blocks"])
def test_two_processes_train_as_one_does(config, switch):
    """DDP sends neither bits nor what lies on the CPU."""
    common = ["train.gradient_checkpointing=true", "train.num_steps=2", "train.gradient_accumulation=1", switch]
    one = train_raw(config("one", None, *common, "train.batch_size=2"))
    raw = config("two", None, *common, "train.batch_size=1")
    assert train_in_two(raw) == [0, 0]
    pairs = zip(one.read_metrics("train"), RunDir(Path(raw["run"])).read_metrics("train"), strict=True)
    assert all(a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3) for a, b in pairs)
