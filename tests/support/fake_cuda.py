"""Tensors of a GPU without a GPU: torch's fake ones, which have a shape, a dtype and a device but no values.

It needs a CUDA build of torch, and `fake_cuda.c` preloaded (`make test-fake-cuda`).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda:0")
aten = torch.ops.aten
# Kernels that refuse operands of unequal dtypes on a GPU, which shapes alone would not show.
PRODUCTS = {
    aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.addbmm, aten.convolution, aten.convolution_backward,
    aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention, aten.native_layer_norm, aten.native_group_norm,
}  # fmt: skip


class FakeGpu(TorchDispatchMode):
    """Computes with a fake GPU: on the CPU for real, on the GPU shapes, dtypes and devices alone.

    Raises where two devices meet, where the host reads a value of the GPU, and for products of unequal dtypes. `waits`:
    the copies to the GPU for which the host waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mode, self.waits = FakeTensorMode(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        target = kwargs.get("device")
        to_gpu = target is not None and torch.device(target).type == "cuda"
        if not to_gpu and not any(isinstance(tensor, FakeTensor) for tensor in given):
            return func(*args, **kwargs)
        if func.overloadpacket in PRODUCTS:
            dtypes = {tensor.dtype for tensor in given if tensor.is_floating_point()}
            if len(dtypes) > 1:
                raise RuntimeError(f"{func} of {', '.join(sorted(map(str, dtypes)))}")
        if to_gpu and given and given[0].device.type == "cpu" and not kwargs.get("non_blocking"):
            self.waits.append(f"{tuple(given[0].shape)} {given[0].dtype}")
        args, kwargs = tree_map(self._fake, (args, kwargs))
        with self.mode:
            return func(*args, **kwargs)

    def _fake(self, leaf: Any) -> Any:
        return self.mode.from_tensor(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor) else leaf


@contextlib.contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Inside, modules that move to the GPU get new parameters: a real one cannot become a fake one in its place."""
    real_to = nn.Module.to

    def to(module: nn.Module, *args: Any, **keys: Any) -> nn.Module:
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    moved = weight.detach().to(*args, **keys)
                    part._parameters[name] = nn.Parameter(moved, requires_grad=weight.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = buffer.to(*args, **keys)
        return module

    torch._C._set_only_lift_cpu_tensors(
        True
    )  # torch.tensor makes its numbers on the CPU, and copies them where we see it
    nn.Module.to = to  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with FakeGpu() as gpu:
            yield gpu
    finally:
        nn.Module.to = real_to
        torch._C._set_only_lift_cpu_tensors(False)
