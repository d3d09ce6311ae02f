"""Trainings with blocks on the CPU: bit for bit those without."""

import pytest
import torch
from support.configs import changed
from support.runs import train_raw

from sipo.config import parse_config
from sipo.errors import UsageError
from sipo.train.checkpoint import load_checkpoint


@pytest.fixture
def pair_of_runs(family_config):
    """(family, kind, offload, more) -> lines and weights of the plain training and of the one with it."""

    def make(family: str, kind: str, where: str, *more: str):
        found = []
        for name, offload in (("plain", "null"), ("moved", where)):
            raw = changed(
                family_config(name, family, kind), "train.num_steps=2", "train.gradient_checkpointing=true",
                "loss={name: sipo, beta: 0.01, prune_threshold: 0.0}", f"model.offload={offload}", *more,
            )  # fmt: skip
            run = train_raw(raw)
            found.append((run.read_metrics("train"), load_checkpoint(run.checkpoints, 2).weights, run))
        return found

    return make


def same(found) -> None:
    (lines, weights, _), (moved_lines, moved_weights, _) = found
    for key in ("loss", "grad_norm", "mse_reference_rejected"):
        assert [line[key] for line in lines] == [line[key] for line in moved_lines], key
    assert weights.keys() == moved_weights.keys()
    assert all(weight.equal(moved_weights[name]) for name, weight in weights.items())
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name or "lora" not in name)


@pytest.mark.parametrize(
    "family",
    ["flux", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sd", "sdxl", "cogvideox-2b", "wan", "wan2.2-14b"))],
)
def test_adapters_on_moved_blocks(pair_of_runs, family):
    same(pair_of_runs(family, "lora", "blocks"))


def test_with_half_precision_accumulation_and_samples(pair_of_runs):
    found = pair_of_runs("sd", "lora", "blocks", "train.mixed_precision=bf16", "train.gradient_accumulation=2",
                         "train.sample_every=2")  # fmt: skip
    same(found)
    pictures = [sorted(run.samples.glob("000002/*.png")) for _, _, run in found]
    assert pictures[0]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*pictures, strict=True))


def test_the_frozen_copy_of_full_fine_tuning(pair_of_runs):
    same(pair_of_runs("flux", "full", "reference"))


def test_a_run_may_change_where_its_blocks_lie(family_config):
    raw = changed(family_config("run", "flux", "lora"), "train.gradient_checkpointing=true", "train.num_steps=2")
    whole = train_raw(changed(raw, f"run={raw['run']}-whole"))
    train_raw(changed(raw, "train.num_steps=1"))
    resumed = train_raw(changed(raw, "model.offload=blocks"))
    a, b = (load_checkpoint(run.checkpoints, 2).weights for run in (whole, resumed))
    assert all(torch.equal(weight, b[name]) for name, weight in a.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.offload=blocks"], "needs train.gradient_checkpointing: true"),
        (["model.offload=blocks", "policy.kind=full"], "model.offload: reference moves its frozen copy"),
        (["model.offload=reference"], "model.offload: blocks"),
        (["model.offload=blocks", "model.quantize=int8"], "do not go together"),
        (["model.offload=blocks", "train.sharding=full"], "train.sharding: none"),
        (["model.offload=blocks", "train.compile=true"], "train.compile: false"),
    ],
)
def test_what_does_not_go_with_it_is_refused_as_the_config_is_read(raw_config, overrides, message):
    with pytest.raises(UsageError, match=message):
        parse_config(changed(raw_config, *overrides))
