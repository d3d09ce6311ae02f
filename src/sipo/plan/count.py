"""FLOPs of a forward and a backward, and the bytes that autograd keeps between them, by running shapes on meta."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sipo.backbones.denoisers import networks_of
from sipo.plan.mixed import AsOnGpu


@dataclass(frozen=True)
class Counted:
    """One sample through the policy. FLOPs count a multiply-add as two; bytes are those of saved tensors.

    Of several denoisers a sample takes one: what depends on samples is the mean over them.

    `forward`, `backward`, `recomputed`: FLOPs; the last is the second forward of gradient checkpointing.
    `activations`: bytes kept for the backward without checkpointing. With it: `kept`, the inputs of the blocks and what
    lies outside them, and `largest_block`, the activations of one block, there anew while its backward runs.
    `weight_copies`: bytes of the weights' copies in the autocast dtype.
    """

    forward: int
    backward: int
    recomputed: int
    activations: int
    kept: int
    largest_block: int
    weight_copies: int

    @property
    def checkpointed(self) -> int:
        """Bytes at the peak with gradient checkpointing."""
        return self.kept + self.largest_block


class Saved(saved_tensors_hooks):
    """Collects the distinct storages that autograd saves while the context lasts, but for those of weights."""

    def __init__(self, is_weight: Callable[[int], bool]):
        super().__init__(self.keep, lambda tensor: tensor)
        self.is_weight, self.storages = is_weight, {}

    def keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not self.is_weight(storage._cdata):
            self.storages[storage._cdata] = storage  # held, so that no other takes its address
        return tensor


def num_bytes(storages: dict[int, torch.UntypedStorage]) -> int:
    return sum(storage.nbytes() for storage in storages.values())


def forward_flops(forward: Callable[[], object], compute: torch.dtype = torch.float32) -> int:
    """FLOPs of one call without gradients."""
    with torch.no_grad(), AsOnGpu(compute), FlopCounterMode(display=False) as flops, _without_warnings():
        forward()
    return flops.get_total_flops()


def count(denoiser: nn.Module, forward: Callable[[], Tensor], compute: torch.dtype) -> Counted:
    """Run one forward of the denoiser, and its backward; the weights that require gradients are the trained ones.

    `denoiser` supports gradient checkpointing as diffusers' networks do, and is left in that mode.
    """
    own = {tensor.untyped_storage()._cdata for tensor in (*denoiser.parameters(), *denoiser.buffers())}
    mode = AsOnGpu(compute)

    def is_weight(storage: int) -> bool:
        return storage in own or storage in mode.copied_storages

    outside, inputs_of_blocks, blocks = Saved(is_weight), Saved(is_weight), []
    flops = FlopCounterMode(display=False)
    recomputed = 0

    def run_block(block: Callable[..., Any], *args: Any) -> Any:
        nonlocal recomputed
        before = flops.get_total_flops()
        for tensor in (arg for arg in args if isinstance(arg, Tensor)):
            inputs_of_blocks.keep(tensor)
        inside = Saved(is_weight)
        with inside:
            out = block(*args)
        blocks.append(inside.storages)
        recomputed += flops.get_total_flops() - before
        return out

    denoiser.enable_gradient_checkpointing(gradient_checkpointing_func=run_block)
    with flops, _without_warnings():
        with mode, outside:
            prediction = forward()
        forward_flops = flops.get_total_flops()
        prediction.sum().backward()
    for weight in denoiser.parameters():
        weight.grad = None
    everything = outside.storages | {key: value for block in blocks for key, value in block.items()}
    kept = outside.storages | inputs_of_blocks.storages
    largest = max((num_bytes({k: v for k, v in block.items() if k not in kept}) for block in blocks), default=0)
    copies = {id(copy): copy.untyped_storage() for copy in mode.weight_copies.values()}
    num = len(networks_of(denoiser))
    return Counted(
        forward=forward_flops // num,
        backward=(flops.get_total_flops() - forward_flops) // num,
        recomputed=recomputed // num,
        activations=num_bytes(everything) // num,
        kept=num_bytes(kept) // num,
        largest_block=largest,
        weight_copies=num_bytes(copies),
    )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """torch warns that float32 weights of a norm do not dispatch to a fused kernel, which meta tensors never do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
