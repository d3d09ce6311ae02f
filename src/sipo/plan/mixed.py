"""Autocast and fused attention as a GPU would run them, on the meta device, where torch knows neither."""

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# torch's CUDA autocast op reference (pytorch.org/docs/stable/amp.html), as far as denoisers and encoders use it.
LOWERED = {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "matmul",
           "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm", "baddbmm", "prelu",
           "scaled_dot_product_attention"}  # fmt: skip
RAISED = {"layer_norm", "group_norm", "softmax", "log_softmax", "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal",
          "exp", "log", "norm", "normalize", "cumsum", "prod", "sum", "mse_loss", "softplus"}  # fmt: skip


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

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.compute != torch.float32 and name in LOWERED | RAISED:
            dtype = self.compute if name in LOWERED else torch.float32
            args = tuple(self._cast(value, dtype) for value in args)
            kwargs = {key: self._cast(value, dtype) for key, value in kwargs.items()}
        if name == "scaled_dot_product_attention":
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _cast(self, value, dtype: torch.dtype):
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
