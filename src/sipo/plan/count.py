"""FLOPs of a forward and a backward, and the bytes that autograd keeps between them, by running shapes on meta."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from sipo.backbones.denoisers import networks_of

# torch's CUDA autocast op reference (pytorch.org/docs/stable/amp.html), as far as denoisers and encoders use it.
LOWERED = {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "matmul",
           "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm", "baddbmm", "prelu",
           "scaled_dot_product_attention"}  # fmt: skip
RAISED = {"layer_norm", "group_norm", "softmax", "log_softmax", "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal",
          "exp", "log", "norm", "normalize", "cumsum", "prod", "sum", "mse_loss", "softplus"}  # fmt: skip


@dataclass(frozen=True)
class Counted:
    """One sample through the policy. FLOPs count a multiply-add as two; bytes are those of saved tensors.

    Of several denoisers a sample takes one: what depends on samples is the mean over them.

    `forward`, `backward`, `recomputed`: FLOPs; the last is the second forward of gradient checkpointing.
    `activations`: bytes kept for the backward without checkpointing. With it: `kept`, the inputs of the blocks and what
    lies outside them, and `largest_block`, the activations of one block, there anew while its backward runs.
    `weight_copies`: bytes of the weights' copies in the autocast dtype; `frozen_copies`: those of frozen weights among them.
    """

    forward: int
    backward: int
    recomputed: int
    activations: int
    kept: int
    largest_block: int
    weight_copies: int
    frozen_copies: int

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


def count(denoiser: Any, forward: Callable[[], Tensor], compute: torch.dtype) -> Counted:
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
    trained = {id(weight) for weight in denoiser.parameters() if weight.requires_grad}
    copies = {weight: copy.untyped_storage() for weight, copy in mode.weight_copies.items()}
    num = len(networks_of(denoiser))
    return Counted(
        forward=forward_flops // num,
        backward=(flops.get_total_flops() - forward_flops) // num,
        recomputed=recomputed // num,
        activations=num_bytes(everything) // num,
        kept=num_bytes(kept) // num,
        largest_block=largest,
        weight_copies=num_bytes(copies),
        frozen_copies=num_bytes({weight: copy for weight, copy in copies.items() if weight not in trained}),
    )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """torch warns that float32 weights of a norm do not dispatch to a fused kernel, which meta tensors never do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class AsOnGpu(TorchFunctionMode):
    """Casts as `torch.autocast("cuda", compute)` would, and one fused kernel for attention, which keeps no score matrix.

    `compute`: the autocast dtype; float32 casts nothing. `weight_copies`: id of a parameter -> its copy in the compute
    dtype, which autograd keeps from forward to backward. Attention is PyTorch's memory-efficient kernel, whose saved
    tensors (q, k, v, output, log-sum-exp) are those of FlashAttention.
    """

    def __init__(self, compute: torch.dtype):
        super().__init__()
        self.compute = compute
        self.weight_copies: dict[int, Tensor] = {}
        self.copied_storages: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs: dict[str, Any] | None = None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.compute != torch.float32 and name in LOWERED | RAISED:
            dtype = self.compute if name in LOWERED else torch.float32
            args = tuple(self._cast(value, dtype) for value in args)
            kwargs = {key: self._cast(value, dtype) for key, value in kwargs.items()}
        if name == "scaled_dot_product_attention":
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(dtype)
        if id(value) not in self.weight_copies:
            self.weight_copies[id(value)] = value.to(dtype)
            self.copied_storages.add(self.weight_copies[id(value)].untyped_storage()._cdata)
        return self.weight_copies[id(value)]


def _attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]
