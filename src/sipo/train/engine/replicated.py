"""The unsharded network in every process: one process, or several with DDP."""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map

from sipo.backbones.offload import offload
from sipo.config import Offload
from sipo.processes import Processes
from sipo.train.policy import Policy


@dataclass(frozen=True)
class Replicated:
    """See `Engine`. DDP averages the gradients in the last micro-step."""

    policy: Policy
    network: nn.Module

    @property
    def collective(self) -> bool:
        return False

    def with_policy(self, policy: Policy) -> "Replicated":
        return replace(self, policy=policy)

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        if isinstance(self.network, DistributedDataParallel) and not last:
            return self.network.no_sync()
        return contextlib.nullcontext()

    def local_weights(self) -> list[nn.Parameter]:
        return list(self.policy.trainable.values())

    def unsharded_weights(self, frozen: bool = False) -> dict[str, Tensor]:
        return self.policy.state()


def replicate(
    policy: Policy, processes: Processes, compute: torch.dtype, idle_weights: bool, offloaded: Offload | None = None
) -> Replicated:
    """The policy on this process's device, ready to train; frozen blocks of the `offloaded` network stay on the CPU.

    DDP waits for a gradient of every weight, unless told to look.
    """
    away = {None: None, "blocks": policy.denoiser, "reference": policy.frozen_copy}[offloaded]
    for network in policy.networks:
        if network is away:
            offload(network, processes.device)
        else:
            network.to(processes.device)
    if compute != torch.float32:
        policy.denoiser.register_forward_hook(_output_in_float32)  # the samplers' arithmetic is in float32 then
    if processes.world == 1:
        return Replicated(policy, policy.denoiser)
    devices = None if processes.device.type == "cpu" else [processes.device]
    # Every process has loaded the same frozen weights; on the CPU, or in 8 or 4 bits, DDP could not send them.
    frozen = [name for name, weight in policy.denoiser.named_parameters() if not weight.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(policy.denoiser, frozen)
    network = DistributedDataParallel(policy.denoiser, device_ids=devices, find_unused_parameters=idle_weights)
    return Replicated(policy, network)


def _output_in_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    half = (torch.float16, torch.bfloat16)
    return tree_map(lambda x: x.float() if isinstance(x, Tensor) and x.dtype in half else x, output)
