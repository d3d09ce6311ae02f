"""The state of a training against a real step; what copies and shards must add up to; the table of GPUs."""

import dataclasses

import pytest
import torch
from support.configs import changed
from torch import nn

from sipo.backbones import load_backbone
from sipo.config import ModelConfig, parse_config
from sipo.errors import UsageError
from sipo.plan.gpus import GPUS, named_gpu
from sipo.plan.memory import Memory, adamw8bit_bytes, adamw_bytes, data_parallel, sharded
from sipo.plan.plan import make_plan
from sipo.train.optim import Ema
from sipo.train.policy import make_policy

PARTS = [field.name for field in dataclasses.fields(Memory)]
DIVIDED = {"weights", "trained", "reference", "gradients", "optimizer", "average"}
ONE = Memory(weights=100, trained=40, weight_copies=20, reference=8, gradients=40, optimizer=80, average=41,
             encoders=7, activations=1000)  # fmt: skip


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_state_of_a_training_is_that_of_a_real_step(kind, raw_config, tiny_sd):
    """Gradients, AdamW's state and the moving average, counted after one step of the real policy."""
    config = parse_config(changed(raw_config, f"policy.kind={kind}", "train.ema_decay=0.9"))
    planned = make_plan(config, GPUS["h100"], [1]).layouts[0].memory
    backbone = load_backbone(ModelConfig(str(tiny_sd)))
    policy = make_policy(backbone, config.policy, needs_reference=False, seed=0)
    average = Ema(policy.trainable, 0.9).average
    optimizer = torch.optim.AdamW(policy.trainable.values())
    text = backbone.encode_prompts(["a"])
    backbone.predict(policy.denoiser, torch.randn(1, 4, 8, 8), torch.tensor([500]), text).sum().backward()
    optimizer.step()
    assert planned.gradients == sum(weight.grad.nbytes for weight in policy.trainable.values())
    assert planned.optimizer == sum(v.nbytes for state in optimizer.state.values() for v in state.values())
    assert planned.average == sum(weight.nbytes for weight in average.values())


def test_the_optimizers_state_is_that_of_a_real_step():
    network = nn.Sequential(nn.Linear(7, 11), nn.Linear(11, 3, bias=False))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 7)).sum().backward()
    optimizer.step()
    real = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    assert adamw_bytes([p.numel() for p in network.parameters()]) == real


def test_8_bit_states_are_a_quarter_but_for_small_tensors():
    assert adamw8bit_bytes([256 * 100]) == 2 * 25_600 + 8 * 100
    assert adamw8bit_bytes([4097]) == 2 * 4097 + 8 * 17
    assert adamw8bit_bytes([100]) == 800


@pytest.mark.parametrize("part", PARTS)
def test_every_part_counts_once(part):
    assert dataclasses.replace(ONE, **{part: getattr(ONE, part) + 1}).total == ONE.total + 1


def test_one_gpu_neither_copies_nor_shards():
    assert data_parallel(ONE, 1) == sharded(ONE, 1, block=30) == ONE


def test_data_parallel_holds_everything_and_a_second_copy_of_the_gradients():
    found = data_parallel(ONE, 4)
    assert found == data_parallel(ONE, 2)
    assert all(getattr(found, part) == getattr(ONE, part) for part in PARTS if part != "communication")
    assert found.total - ONE.total == ONE.gradients


@pytest.mark.parametrize("num_gpus", [2, 3, 7, 8])
def test_all_shards_together_hold_everything_once(num_gpus):
    shard = sharded(ONE, num_gpus, block=30)
    for part in DIVIDED:
        over = num_gpus * getattr(shard, part) - getattr(ONE, part)
        assert 0 <= over < num_gpus, part  # each holds a whole number of bytes
    assert (shard.encoders, shard.activations) == (ONE.encoders, ONE.activations)
    assert shard.communication == 30  # the gathered block is what autocast would have copied
    assert shard.weight_copies == 0


def test_gpus_by_name():
    assert named_gpu("H100") is GPUS["h100"]
    assert named_gpu("RTX 4090").peak("bf16") == 165.2e12
    assert named_gpu("a100_80").peak("no") == 19.5e12
    for wrong, near in (("a100", "a100-80"), ("rtx4900", "rtx4090"), ("h10", "h100"), ("v100", "v100-32")):
        with pytest.raises(UsageError, match=f"did you mean {near}"):
            named_gpu(wrong)
    with pytest.raises(UsageError, match="--gpu: 'mystery' is not known; known are b200"):
        named_gpu("mystery")


def test_bfloat16_on_a_gpu_without_it():
    with pytest.raises(UsageError, match="v100-32 has no bfloat16 tensor cores"):
        named_gpu("v100-32").peak("bf16")
    assert named_gpu("v100-32").peak("fp16") == 125e12
