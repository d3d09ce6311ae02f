"""Frozen blocks that lie on the CPU, and come to the device one ahead of when they run.

diffusers' group offloading moves a weight back when its forward ends, and autograd, which keeps the weight itself, then finds
it on the CPU in the backward. Here a layer computes with a copy on the device that takes the weight's place while it runs: the graph
holds the copies that it needs. With gradient checkpointing that is one block's, until its backward is done.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sipo.backbones.denoisers import streamed_blocks

COPIES = 2  # blocks on the device at most: the one that runs, and the next
Place = tuple[nn.Module, str]  # a module and the name of a weight of its own


def offload(network: nn.Module, device: torch.device) -> "Blocks":
    """Move a network to the device, but for the frozen weights of its blocks, which come when they run.

    Returns what moves them; the hooks on the network keep it.
    """
    blocks = [_frozen(block) for block in streamed_blocks(network)]
    for block in blocks:
        for (module, name), _ in block.items():
            module._parameters[name] = None
    network.to(device)
    if device.type == "cuda":
        blocks = [{place: _pinned(weight) for place, weight in block.items()} for block in blocks]
    for block in blocks:
        for (module, name), weight in block.items():
            module._parameters[name] = weight
    moved = Blocks(blocks, device)
    for number, block in enumerate(blocks):
        for module in dict.fromkeys(module for module, _ in block):
            names = [name for owner, name in block if owner is module]
            module.register_forward_pre_hook(partial(moved.enter, number, names))
            # Also where a forward ends early, as the forward again of gradient checkpointing does.
            module.register_forward_hook(partial(moved.leave, number, names), always_call=True)
    return moved


class Blocks:
    """Each block's weights on the CPU, and copies on the device of the one that runs and of the next."""

    def __init__(self, blocks: list[dict[Place, nn.Parameter]], device: torch.device):
        self.blocks, self.device = blocks, device
        self.copies: dict[int, dict[Place, nn.Parameter]] = {}
        self.arrivals: dict[int, Any] = {}  # of CUDA: an event for each block on its way
        self.current = -1
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def enter(self, number: int, names: list[str], module: nn.Module, _inputs: Any) -> None:
        if number != self.current:
            self._turn_to(number)
        for name in names:
            module._parameters[name] = self.copies[number][module, name]

    def leave(self, number: int, names: list[str], module: nn.Module, _inputs: Any, _output: Any) -> None:
        for name in names:
            module._parameters[name] = self.blocks[number][module, name]

    def _turn_to(self, number: int) -> None:
        """Wait for a block, forget the others, and send for the one that follows in the direction of travel."""
        following = number + (1 if number > self.current else -1)
        self.current = number
        self._send(number)
        self.copies = {kept: self.copies[kept] for kept in (number, following) if kept in self.copies}
        if self.stream is not None:
            compute = torch.cuda.current_stream(self.device)
            if arrival := self.arrivals.pop(number, None):
                compute.wait_event(arrival)
            for weight in self.copies[number].values():
                weight.data.record_stream(compute)  # its memory is reused only after what is queued there
        if 0 <= following < len(self.blocks):
            self._send(following)

    def _send(self, number: int) -> None:
        if number in self.copies:
            return
        with torch.cuda.stream(self.stream):  # without one, nothing
            self.copies[number] = {
                place: nn.Parameter(_copy(weight, self.device), requires_grad=False)
                for place, weight in self.blocks[number].items()
            }
            if self.stream is not None:
                self.arrivals[number] = self.stream.record_event()


def _frozen(block: nn.Module) -> dict[Place, nn.Parameter]:
    return {
        (module, name): weight
        for module in block.modules()
        for name, weight in module._parameters.items()
        if weight is not None and not weight.requires_grad
    }


def _pinned(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight.data.pin_memory(), requires_grad=False)


def _copy(weight: Tensor, device: torch.device) -> Tensor:
    return weight.data.to(device, non_blocking=True, copy=True)
