"""FSDP2: each process holds a shard of the denoiser, and gathers one block at a time to compute with it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from sipo.backbones.denoisers import blocks_of
from sipo.processes import Processes
from sipo.train.policy import Policy


@dataclass(frozen=True)
class Sharded:
    """See `Engine`. Weights, gradients and optimizer state are sharded.

    reshard: free each block after its forward and gather it again for the backward; otherwise the gathered blocks stay
    from the first forward of a step to its last backward. In validation and sampling blocks are freed either way.
    """

    policy: Policy
    network: Any  # an FSDPModule, which is a mixin and no nn.Module to a type checker
    processes: Processes
    reshard: bool

    @property
    def collective(self) -> bool:
        return True

    def with_policy(self, policy: Policy) -> "Sharded":
        return replace(self, policy=policy)

    @contextlib.contextmanager
    def micro_step(self, last: bool) -> Iterator[None]:
        # Unsharded gradients are kept between micro-steps where they are small (adapters). Those of full fine-tuning
        # are averaged in every micro-step, because they are what does not fit.
        self.network.set_requires_gradient_sync(last or self.policy.config.kind == "full")
        self.network.set_reshard_after_forward(self.reshard)
        self.network.set_reshard_after_backward(self.reshard or last)
        yield
        self.network.set_reshard_after_forward(True)

    def local_weights(self) -> list[nn.Parameter]:
        return []

    def unsharded_weights(self, frozen: bool = False) -> dict[str, Tensor]:
        found, wanted = {}, self.policy.state()
        if frozen and self.policy.config.kind == "full":
            wanted = {name: weight.detach() for name, weight in self.policy.denoiser.named_parameters()}
        for name, weight in wanted.items():  # one at a time on the device
            weight = weight.full_tensor() if isinstance(weight, DTensor) else weight
            if self.processes.is_main:
                found[name] = weight.cpu()
        return found


def shard(policy: Policy, processes: Processes, compute: torch.dtype, reshard: bool) -> Sharded:
    """Shard the policy's network and its frozen copies in place; its `trainable` are DTensors from now on.

    Weights move to the device block by block, so a network that is on the CPU never lies on one GPU as a whole. Every
    process must hold the same weights. With LoRA, blocks are gathered in their own dtype, and autocast does the rest as
    it does without sharding. In full fine-tuning, the float32 masters are gathered in `compute` and the gradients
    reduced in float32, because autocast's copies of whole networks would outlive their blocks.
    """
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    unchanged = MixedPrecisionPolicy(cast_forward_inputs=False)  # casting would round the timesteps
    masters = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
    half = policy.config.kind == "full" and compute != torch.float32
    _shard(policy.denoiser, mesh, masters if half else unchanged)
    for frozen in policy.networks[1:]:
        _shard(frozen, mesh, unchanged)
    trainable = {name: weight for name, weight in policy.denoiser.named_parameters() if weight.requires_grad}
    return Sharded(replace(policy, trainable=trainable), policy.denoiser, processes, reshard)


def _shard(network: nn.Module, mesh: DeviceMesh, precision: MixedPrecisionPolicy) -> None:
    # The root is freed after a forward too: left gathered, it would miss a change of its weights before the next one.
    for part in [*blocks_of(network), network]:
        fully_shard(part, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
