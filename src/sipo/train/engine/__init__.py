"""How a policy lies over the processes: the protocol, and the one place that chooses its implementation."""

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from sipo.config import Offload, TrainConfig
from sipo.processes import Processes
from sipo.train.engine.replicated import replicate
from sipo.train.engine.sharded import shard
from sipo.train.policy import Policy

__all__ = ["Engine", "make_engine"]


class Engine(Protocol):
    """A policy on its device or devices. All processes call each method, in the same order."""

    @property
    def policy(self) -> Policy:
        """Its `trainable` weights are those that the updates change."""
        ...

    @property
    def network(self) -> nn.Module:
        """The policy's network as the forward of a training calls it."""
        ...

    @property
    def collective(self) -> bool:
        """Whether a forward needs all processes, because each holds a shard of the network."""
        ...

    def with_policy(self, policy: Policy) -> "Engine":
        """The same with other frozen networks."""
        ...

    def micro_step(self, last: bool) -> AbstractContextManager[None]:
        """Around one forward and backward. After the last one of a step, gradients are averaged over the processes."""
        ...

    def local_weights(self) -> list[nn.Parameter]:
        """The weights whose gradients are local after a backward; empty where they are averaged first."""
        ...

    def unsharded_weights(self, frozen: bool = False) -> dict[str, Tensor]:
        """The trained weights by name. Sharded ones arrive at the first process only, on its CPU.

        frozen: beside them what full fine-tuning leaves frozen, where it is sharded.
        """
        ...


def make_engine(
    config: TrainConfig, policy: Policy, processes: Processes, compute: torch.dtype, idle_weights: bool = False,
    offloaded: Offload | None = None,
) -> Engine:  # fmt: skip
    """Move a policy from the CPU to its device or devices. One process has nothing to shard.

    idle_weights: some trained weights get no gradient (see `sipo.backbones.family.Family`). offloaded: `model.offload`.
    """
    if config.sharding == "none" or processes.world == 1:
        return replicate(policy, processes, compute, idle_weights, offloaded)
    return shard(policy, processes, compute, reshard=config.sharding == "full")
