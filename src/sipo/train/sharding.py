"""Sharding (FSDP2): each process keeps its share of the denoiser, and gathers one block at a time to compute with it."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sipo.config import Config
from sipo.train.policy import Policy
from sipo.train.zero import ZeroOptimizer


def is_sharded(config: Config, accelerator: Accelerator) -> bool:
    """Whether the denoiser is spread over processes. On one process `train.sharding: full` has nothing to spread."""
    return config.train.sharding == "full" and accelerator.num_processes > 1


def shard_policy(policy: Policy, accelerator: Accelerator, compute: torch.dtype) -> Policy:
    """The policy with its network, and its frozen copy, sharded in place; its `trainable` are DTensors from now on.

    Weights move to the device block by block, so a network that is on the CPU never lies on one GPU as a whole. Every
    process must hold the same weights. With LoRA, what is gathered has the dtype it has, and autocast does the rest as
    it does without sharding; where all is trained, the float32 masters are gathered in `compute` and the gradients
    reduced in float32, because autocast's copies of whole networks would outlive their blocks.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    as_they_are = MixedPrecisionPolicy(cast_forward_inputs=False)  # casting would round the timesteps
    masters = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
    half = policy.config.kind == "full" and compute != torch.float32
    _shard(policy.denoiser, mesh, masters if half else as_they_are)
    if policy.frozen_copy is not None:
        _shard(policy.frozen_copy, mesh, as_they_are)
    return replace(policy, trainable={n: w for n, w in policy.denoiser.named_parameters() if w.requires_grad})


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """What is gathered at once: the items of the network's own lists, and its other children, if they have weights."""
    parts = (part for child in network.children() for part in (child if isinstance(child, nn.ModuleList) else [child]))
    return [part for part in parts if next(part.parameters(), None) is not None]


def _shard(network: nn.Module, mesh, precision: MixedPrecisionPolicy) -> None:
    # The root is freed after a forward too: left gathered, it would not see a change of its weights before the next one.
    for part in [*blocks_of(network), network]:
        fully_shard(part, mesh=mesh, mp_policy=precision, reshard_after_forward=True)


@contextlib.contextmanager
def micro_step(model: nn.Module, accelerator: Accelerator, is_last: bool, keep_whole: bool) -> Iterator[None]:
    """One forward and backward; gradients are averaged over the processes in the last one of a step.

    `keep_whole`: that a sharded model may hold whole gradients between micro-steps (adapters: they are small).
    Otherwise it averages in every micro-step and keeps its share, since whole gradients are what does not fit.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(is_last or not keep_whole)
        yield
        return
    with contextlib.nullcontext() if is_last else accelerator.no_sync(model):
        yield


def backward(loss: Tensor, optimizer: Any, accelerator: Accelerator, is_last: bool) -> None:
    """Gradients of one micro-batch, whoever keeps them."""
    if isinstance(optimizer, ZeroOptimizer):
        optimizer.backward(loss, is_last)
    else:
        accelerator.backward(loss)


def clip_gradients(weights: list[nn.Parameter], max_norm: float, optimizer: Any, accelerator: Accelerator) -> Tensor:
    """Scale the gradients to the norm `max_norm` at most, over all weights and shards; returns the norm before, ().

    ZeRO's optimizer scales them on its own, in its step.
    """
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.gradient_norm()
    accelerator.unscale_gradients()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    torch.nn.utils.clip_grads_with_norm_(weights, max_norm, norm)
    return norm


def gather_weights(policy: Policy, keep: bool) -> dict[str, Tensor]:
    """The trained weights by name, whole. Sharded ones are gathered one by one, on the CPU of the processes that `keep`.

    All processes must call this; those that do not keep get nothing of sharded weights.
    """
    whole = {}
    for name, weight in policy.state().items():
        if isinstance(weight, DTensor):
            weight = weight.full_tensor()
            weight = weight.cpu() if keep else None
        if weight is not None:
            whole[name] = weight
    return whole
