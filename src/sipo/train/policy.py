"""The policy, its reference and its start: LoRA adapters that switch, or a network and its frozen copies."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sipo.backbones import Backbone
from sipo.backbones.lora import POLICY, activate, add_adapters, with_adapters, without_adapters
from sipo.backbones.lora_names import Form
from sipo.config import PolicyConfig
from sipo.errors import UserError
from sipo.jsonl import read_object
from sipo.run import RunDir

START = "start"  # the frozen adapters of what the policy started from
RECORD = "sipo.json"  # in a folder of weights: base, kind and step


class Trainable(Protocol):
    """A `Backbone`, or its shapes on the meta device."""

    @property
    def denoiser(self) -> nn.Module: ...

    @property
    def lora_targets(self) -> Sequence[str]: ...

    def trains(self, name: str) -> bool: ...


Other = Literal["reference", "old"]


@dataclass(frozen=True)
class Policy:
    """What is trained. `trainable` maps names to the float32 master weights, in the network's order.

    Sharded (see `sipo.train.engine`), they are DTensors, of which each process holds a shard. In full fine-tuning
    `frozen_copy` is the model, and `start_copy` the network that the policy started from, each only where it is needed;
    with LoRA the model is the network without adapters, and the start has frozen adapters of its own.
    """

    config: PolicyConfig
    denoiser: Any  # an nn.Module; its methods for adapters come from mixins of diffusers
    trainable: dict[str, nn.Parameter]
    frozen_copy: nn.Module | None = None
    start_copy: nn.Module | None = None

    @property
    def networks(self) -> list[nn.Module]:
        """The policy's and the frozen ones."""
        return [each for each in (self.denoiser, self.frozen_copy, self.start_copy) if each is not None]

    @contextlib.contextmanager
    def network(self, which: Other) -> Iterator[nn.Module]:
        """A network that does not train, for no-grad use; the policy's adapters are on again when the context ends.

        "reference": the model, or what the policy started from where the config says so. "old": what it started from.
        """
        at_start = which == "old" or self.config.reference == "start"
        if self.config.kind == "full":
            copied = self.start_copy if at_start else self.frozen_copy
            assert copied is not None, f"make_policy was told that no {which} is needed"
            yield copied
            return
        with with_adapters(self.denoiser, START) if at_start else without_adapters(self.denoiser) as network:
            yield network

    def without_reference(self, needs_old: bool) -> "Policy":
        """Without the copies that only the reference needs."""
        return replace(self, frozen_copy=None, start_copy=self.start_copy if needs_old else None)

    def state(self) -> dict[str, Tensor]:
        """The trained weights by name, sharing memory with the network."""
        return {name: weight.detach() for name, weight in self.trainable.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Copy weights of the same names and shapes into the network. Raises UserError when they do not fit."""
        load_into(self.trainable, state)


@dataclass(frozen=True)
class Copies:
    """Which frozen copies a training holds: of the network as it was loaded, of the network that it starts from in float32, of
    the adapters that it starts from."""

    model: bool
    start: bool
    adapters: bool


def frozen_copies(config: PolicyConfig, needs_reference: bool, needs_old: bool) -> Copies:
    """With LoRA the model is the network without adapters."""
    full, by_start = config.kind == "full", config.reference == "start"
    start = needs_old or (needs_reference and by_start)
    return Copies(full and needs_reference and not by_start, full and start, not full and start)


def make_policy(
    backbone: Trainable, config: PolicyConfig, needs_reference: bool, seed: int, needs_old: bool = False,
    start: dict[str, Tensor] | None = None,
) -> Policy:  # fmt: skip
    """Prepare the backbone's denoiser for training. LoRA starts as the identity, so the policy equals its reference.

    start: the weights of `config.start`, by the names of the trained ones; None leaves the network as it is (on the meta
    device, or where others are loaded afterwards).
    """
    denoiser: Any = backbone.denoiser
    copies = frozen_copies(config, needs_reference, needs_old)
    frozen_copy = start_copy = None
    denoiser.requires_grad_(config.kind == "full")
    targets = config.target_modules or backbone.lora_targets
    if config.kind == "lora":
        torch.manual_seed(seed)
        trainable = add_adapters(denoiser, targets, config.rank, config.alpha)
    else:
        if copies.model:
            frozen_copy = copy.deepcopy(denoiser).requires_grad_(False).eval()
        trainable = {name: weight for name, weight in denoiser.named_parameters() if backbone.trains(name)}
        for name in dict(denoiser.named_parameters()).keys() - trainable.keys():
            denoiser.get_parameter(name).requires_grad_(False)
    for weight in trainable.values():
        weight.data = weight.data.float()  # in bfloat16 a small update would be lost to rounding
    if start is not None:
        load_into(trainable, start)
    if copies.adapters:
        stored = add_adapters(denoiser, targets, config.rank, config.alpha, START)
        for name, weight in stored.items():
            own = trainable[name.replace(f".{START}.", f".{POLICY}.")].requires_grad_(True)
            weight.requires_grad_(False).data = own.detach().clone()
        activate(denoiser, POLICY)
    elif copies.start:
        start_copy = copy.deepcopy(denoiser).requires_grad_(False).eval()
    denoiser.train()
    return Policy(config, denoiser, trainable, frozen_copy, start_copy)


@torch.no_grad()
def load_into(weights: dict[str, nn.Parameter], state: dict[str, Tensor]) -> None:
    """Copy a state of the same names and shapes into the weights. Raises UserError when it does not fit."""
    if missing := weights.keys() ^ state.keys():
        raise UserError(f"the weights are of another policy: {len(missing)} names differ, such as {min(missing)}")
    for name, weight in weights.items():
        if weight.shape != state[name].shape:
            found, expected = (" x ".join(map(str, each.shape)) for each in (state[name], weight))
            raise UserError(f"the weights are of another policy: {name} is {found}; expected {expected}")
        weight.copy_(state[name])


def start_folder(config: PolicyConfig) -> Path | None:
    """The weights that the policy starts from. Raises UserError where there are none, or of another kind."""
    if config.start is None:
        return None
    folder = RunDir(Path(config.start)).weights if RunDir(Path(config.start)).config.is_file() else Path(config.start)
    if not (folder / RECORD).exists():
        raise UserError(f"policy.start: {folder} holds no weights of a run: it has no {RECORD}")
    written = read_object(folder / RECORD, ["kind"])
    if written["kind"] != config.kind:
        raise UserError(f"policy.start: {folder} holds weights of kind {written['kind']}; policy.kind is {config.kind}")
    return folder


def save_policy(
    policy: Policy, backbone: Backbone, folder: Path, weights: dict[str, Tensor], form: Form | None = None
) -> None:
    """Write what plain diffusers loads: LoRA weights, or the whole pipeline. `weights`: the trained ones, unsharded."""
    if policy.config.kind == "full":
        backbone.save_full(folder, weights)
        return
    backbone.save_lora(folder, weights, form)
