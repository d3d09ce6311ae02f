"""Optimizer states against a real AdamW; the arithmetic of copies and shares; the table of GPUs."""

import pytest
import torch
from torch import nn

from sipo.errors import UsageError
from sipo.plan.gpus import GPUS, named_gpu
from sipo.plan.memory import Memory, adamw8bit_bytes, adamw_bytes, data_parallel, sharded

ONE = Memory(weights=100, trained=40, weight_copies=20, reference=8, gradients=40, optimizer=80, average=41,
             encoders=7, activations=1000)  # fmt: skip


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


def test_one_gpu_is_the_sum_of_its_parts():
    assert ONE.total == 100 + 40 + 20 + 8 + 40 + 80 + 41 + 7 + 1000
    assert data_parallel(ONE, 1) == sharded(ONE, 1, 30) == ONE


def test_data_parallel_adds_buckets_of_gradients():
    assert data_parallel(ONE, 4).total == data_parallel(ONE, 2).total == ONE.total + 40


def test_shards_divide_all_but_activations_and_encoders():
    four = sharded(ONE, 4, block=30)
    assert (four.weights, four.trained, four.reference, four.gradients, four.optimizer) == (25, 10, 2, 10, 20)
    assert four.average == 11  # rounded up: somebody holds the rest
    assert (four.weight_copies, four.encoders, four.activations, four.communication) == (0, 7, 1000, 30)
    assert sharded(ONE, 8, block=30).total < four.total


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
