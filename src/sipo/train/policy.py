"""The policy and its reference: LoRA adapters that switch off, or a network and its frozen copy."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sipo.backbones import Backbone
from sipo.backbones.lora import add_adapters, without_adapters
from sipo.config import PolicyConfig
from sipo.errors import UserError


class Trainable(Protocol):
    """A `Backbone`, or its shapes on the meta device."""

    @property
    def denoiser(self) -> nn.Module: ...

    @property
    def lora_targets(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Policy:
    """What is trained. `trainable` maps names to the float32 master weights, in the network's order.

    Sharded (see `sipo.train.engine`), they are DTensors, of which each process holds a shard.
    """

    config: PolicyConfig
    denoiser: Any  # an nn.Module; its methods for adapters come from mixins of diffusers
    trainable: dict[str, nn.Parameter]
    frozen_copy: nn.Module | None = None  # full fine-tuning with a reference only

    @contextlib.contextmanager
    def network(self, which: Literal["reference"]) -> Iterator[nn.Module]:
        """The network as it was before training, for no-grad use; the adapters are on again when the context ends."""
        if self.config.kind == "full":
            assert self.frozen_copy is not None, f"make_policy was told that no {which} is needed"
            yield self.frozen_copy
            return
        with without_adapters(self.denoiser, self.trainable.values()) as network:
            yield network

    def state(self) -> dict[str, Tensor]:
        """The trained weights by name, sharing memory with the network."""
        return {name: weight.detach() for name, weight in self.trainable.items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy weights of the same names and shapes into the network. Raises UserError when they do not fit."""
        if missing := self.trainable.keys() ^ state.keys():
            raise UserError(f"the weights are of another policy: {len(missing)} names differ, such as {min(missing)}")
        for name, weight in self.trainable.items():
            weight.copy_(state[name])


def make_policy(backbone: Trainable, config: PolicyConfig, needs_reference: bool, seed: int) -> Policy:
    """Prepare the backbone's denoiser for training. LoRA starts as the identity, so the policy equals its reference."""
    denoiser: Any = backbone.denoiser
    frozen_copy = None
    if config.kind == "lora":
        torch.manual_seed(seed)
        add_adapters(denoiser, config.target_modules or backbone.lora_targets, config.rank, config.alpha)
    else:
        if needs_reference:
            frozen_copy = copy.deepcopy(denoiser).requires_grad_(False).eval()
        denoiser.requires_grad_(True)
    trainable = {name: weight for name, weight in denoiser.named_parameters() if weight.requires_grad}
    for weight in trainable.values():
        weight.data = weight.data.float()  # in bfloat16 a small update would be lost to rounding
    denoiser.train()
    return Policy(config, denoiser, trainable, frozen_copy)


def save_policy(policy: Policy, backbone: Backbone, folder: Path, weights: dict[str, Tensor]) -> None:
    """Write what plain diffusers loads: LoRA weights, or the whole pipeline. `weights`: the trained ones, unsharded."""
    if policy.config.kind == "full":
        backbone.save_full(folder, weights)
        return
    backbone.save_lora(folder, weights)
