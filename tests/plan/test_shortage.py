"""Out of memory: what was asked, what a step needs, which switch spares how much; on the command line, no traceback."""

import re

import pytest
import torch
import yaml
from rich.console import Console
from support.command_line import run
from support.configs import changed

from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.plan.gpus import named_gpu
from sipo.plan.measure import Measurements
from sipo.plan.plan import make_plan
from sipo.plan.shortage import explained, step_memory
from sipo.plan.switches import switches
from sipo.train.loop import train

OF_TORCH = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.19 GiB is free. "
    "Including non-PyTorch memory, this process has 77.90 GiB memory in use. Of the allocated memory 70.00 GiB is allocated "
    "by PyTorch, and 1.00 GiB is reserved by PyTorch but unallocated. See documentation for Memory Management"
)
FLUX = {"run": "r", "model": {"path": "black-forest-labs/FLUX.1-dev"}, "data": {"path": "p", "resolution": 512},
        "loss": {"name": "sipo"}, "policy": {"kind": "full"},
        "train": {"mixed_precision": "bf16", "batch_size": 4, "gradient_accumulation": 2}}  # fmt: skip


def ask_too_much(*_, **__):
    raise torch.OutOfMemoryError(OF_TORCH)


def said(raw) -> str:
    with pytest.raises(UserError) as caught, explained(parse_config(raw)):
        ask_too_much()
    return str(caught.value)


def needs(raw, *overrides, gpus=1) -> str:
    plan = make_plan(parse_config(changed(raw, *overrides)), named_gpu("h100"), [gpus])
    return f"{plan.layouts[-1].memory.total / 2**30:.1f} GiB"


@pytest.mark.slow
def test_it_says_what_was_asked_what_a_step_needs_and_what_every_switch_makes_of_it():
    lines = said(FLUX).splitlines()
    assert lines[0] == (
        "out of memory: Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.19 GiB is free."
    )
    assert f"about {needs(FLUX)}" in lines[1]
    assert re.search(r"44\.3 (trained weights|gradients)", lines[1])  # 11.9 billion in float32
    found = {tuple(line.split()[:-2]): " ".join(line.split()[-2:]) for line in lines[3:-1] if "sharding" not in line}
    tried = ["train.gradient_checkpointing=true"], ["train.batch_size=1", "train.gradient_accumulation=8"], [
        "data.cache=FOLDER"], ["model.offload=reference"], ["train.optimizer=adamw8bit"], ["train.reference.precompute=4"], [
        "policy.kind=lora"]  # fmt: skip
    assert found == {tuple(each): needs(FLUX, *each) for each in tried}
    sharded = next(line for line in lines if "sharding" in line)
    assert sharded.split() == [
        "train.sharding=full", *needs(FLUX, "train.sharding=full", gpus=2).split(), "on", "each", "of", "2", "GPUs"
    ]  # fmt: skip
    assert "data.resolution" in lines[-1]


def test_each_switch_spares_and_none_is_named_that_is_on(raw_config):
    for kind in ("full", "lora"):
        raw = changed(raw_config, f"policy.kind={kind}", "train.batch_size=4", "train.gradient_checkpointing=true",
                      "train.mixed_precision=bf16")  # fmt: skip
        config, measurements = parse_config(raw), Measurements()
        for switch in switches(config):
            gpus = 2 if switch.shards else 1
            try:
                after = parse_config(changed(raw, *switch.change))
            except UsageError:
                assert kind == "full"  # it needs adapters
                assert "quantize" in str(switch)
                continue
            spared = step_memory(after, gpus, measurements.of(after)).total
            assert spared < step_memory(config, 1, measurements.of(config)).total, switch
            assert switch not in switches(after)
    frugal = changed(raw_config, "train.gradient_checkpointing=true", "train.batch_size=1", "data.cache=c",
                     "model.offload=blocks", "train.optimizer=adamw8bit")  # fmt: skip
    assert [str(switch) for switch in switches(parse_config(frugal))] == ["train.sharding=full"]


def test_a_switch_that_does_not_go_with_the_config_is_not_named(raw_config):
    """8-bit AdamW is not sharded, SFT has no reference."""
    raw = changed(raw_config, "policy.kind=full", "train.optimizer=adamw8bit", "loss={name: sft}")
    told = said(raw)
    assert "train.gradient_checkpointing=true" in told
    assert "sharding" not in told
    assert "precompute" not in told


def test_a_model_that_cannot_be_planned_still_gets_the_switches(raw_config):
    told = said(changed(raw_config, "model.path=nobody/knows-this"))
    assert told.startswith("out of memory: Tried to allocate 2.50 GiB.")
    assert "train.gradient_checkpointing=true" in told


@pytest.mark.parametrize(
    "error",
    [RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
                  "allocate 4096000000000 bytes. Error code 12 (Cannot allocate memory)"),
     RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB). Tried to allocate 1.00 GB on private pool."),
     MemoryError()],
)  # fmt: skip
def test_so_does_the_memory_of_other_devices(raw_config, error):
    with pytest.raises(UserError, match="out of memory"), explained(parse_config(raw_config)):
        raise error


def test_other_errors_pass(raw_config):
    with pytest.raises(RuntimeError, match="a real bug"), explained(parse_config(raw_config)):
        raise RuntimeError("a real bug")


def test_the_command_ends_with_the_message(raw_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sipo.train.step.batch_terms", ask_too_much)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(changed(raw_config, "train.sample_every=0")))
    status, _, complaint = run(monkeypatch, capsys, "train", tmp_path / "c.yaml")
    assert status == 1
    assert "Tried to allocate 2.50 GiB" in complaint
    assert "train.gradient_checkpointing=true" in complaint


def test_a_command_without_a_config_says_it_too(tiny_sd, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sipo.samples.generate.generate", ask_too_much)
    (tmp_path / "p.txt").write_text("a cat\n")
    out = ("--prompts", tmp_path / "p.txt", "--out", tmp_path / "out")
    status, _, complaint = run(monkeypatch, capsys, "generate", tiny_sd, *out)
    assert status == 1
    assert "Tried to allocate 2.50 GiB" in complaint
    assert "batch size" in complaint


def test_samples_in_a_training_are_not_blamed_on_its_steps(raw_config, monkeypatch):
    monkeypatch.setattr("sipo.train.look.generate", ask_too_much)
    config = parse_config(changed(raw_config, "train.sample_every=1", "train.num_steps=1"))
    with (
        pytest.raises(UserError, match=r"sampling 8 at once after step 0(.|\n)*sample.batch_size=1"),
        explained(config),
    ):
        train(config, Console(quiet=True))
