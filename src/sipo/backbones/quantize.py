"""Linear layers of a frozen base in 8 or 4 bits, under adapters in float32 (QLoRA, Dettmers et al. 2023).

y = x What^T + b,  What = q s

int8   q = round(W / s) in -128 .. 127, s = max |row| / 127.5          a scale for each output
fp8    q = W / s rounded to float8_e4m3fn, s = max |row| / 448         a scale for each output
nf4    q one of the 16 quantiles of a normal distribution (NF4), s = max |block| of 64 entries, itself in 8 bits

int8 and fp8 are the numbers of diffusers' `TorchAoConfig(Int8WeightOnlyConfig())` and `(Float8WeightOnlyConfig())`, with scales
in the dtype of computing; nf4 those of its `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
bnb_4bit_use_double_quant=True)`. torchao itself is not used: in training its layers keep What for the backward, a copy of the
weights in half precision.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sipo.backbones.denoisers import networks_of
from sipo.config import Quantization
from sipo.errors import UserError

BLOCK = 64  # entries of nf4 that share a scale
SCALES = 256  # scales of nf4 that share a float32 scale of their own
ADAPTERS = {"lora_A", "lora_B"}  # where peft keeps the layers of adapters
TABLES = 4 * (16 + 256 + 1)  # bytes of nf4's two tables and the mean of the scales, for each layer


class QuantizedLinear(nn.Linear):
    """A frozen linear layer whose weight is made anew in every forward and backward, and kept in neither.

    `weight` and what else stores it are parameters without gradients, so that they move, count and are checked as others.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.bias = layer.bias

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """What, (out, in)."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        kind = input.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return cast(Tensor, _Product.apply(input, self, bias))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear, bias: Tensor | None) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantized(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return grad @ ctx.layer.dequantized(grad.dtype), None, None


class ByRow(QuantizedLinear):
    """int8, and fp8 under the bytes of its numbers: peft takes a floating-point weight's dtype for that of adapters."""

    def __init__(self, layer: nn.Linear, kind: Quantization, compute: torch.dtype):
        super().__init__(layer)
        self.stored = torch.int8 if kind == "int8" else torch.float8_e4m3fn
        weight = layer.weight.detach().float()
        largest = weight.abs().amax(1, keepdim=True)
        # In the dtype of computing, so that it is rounded before the numbers and not after them.
        scale = (largest / (127.5 if kind == "int8" else 448)).clamp(min=torch.finfo(compute).tiny).to(compute)
        q = weight / scale.float()
        q = q.round().clamp(-128, 127) if kind == "int8" else q.clamp(-448, 448)
        self.weight = frozen(q.to(self.stored).view(torch.int8 if kind == "int8" else torch.uint8))
        self.scale = frozen(scale)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        q = self.weight if self.stored == torch.int8 else self.weight.view(self.stored).to(self.scale.dtype)
        return (q * self.scale).to(dtype)


class Nf4(QuantizedLinear):
    """bitsandbytes' storage. state: its scales and tables, which move with the weight."""

    def __init__(self, layer: nn.Linear, compute: torch.dtype):
        super().__init__(layer)
        packed, self.state = bitsandbytes().quantize_4bit(
            layer.weight.detach().to(compute), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        self.weight = frozen(packed)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        return bitsandbytes().dequantize_4bit(self.weight.data, self.state).to(dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> "Nf4":
        super()._apply(fn, recurse)
        self.state.to(self.weight.device)
        return self


def quantize(denoiser: nn.Module, kind: Quantization, compute: torch.dtype) -> None:
    """Put every linear layer of a denoiser into 8 or 4 bits, in place, before it gets adapters.

    As diffusers does it, modules that a network keeps in float32 stay as they are; so do convolutions and norms.
    Raises UserError where nf4 lacks bitsandbytes.
    """
    for network in networks_of(denoiser):
        for name, layer in linear_layers(network):
            network.set_submodule(name, Nf4(layer, compute) if kind == "nf4" else ByRow(layer, kind, compute))


def linear_layers(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Those of one diffusers network that are quantised, adapted or not."""
    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return [
        (name, layer)
        for name, layer in layers
        if not kept & set(name.split(".")) and not ADAPTERS & set(name.split("."))
    ]


def quantized_bytes(kind: Quantization, rows: int, columns: int, compute: torch.dtype) -> int:
    """Of a weight (rows, columns) and its scales."""
    if kind != "nf4":
        return rows * columns + rows * compute.itemsize
    blocks = -(-rows * columns // BLOCK)
    return -(-rows * columns // 2) + blocks + 4 * -(-blocks // SCALES) + TABLES


def num_entries(network: nn.Module) -> int:
    """Entries of a network's weights as they were before they were quantised."""
    found = 0
    for module in network.modules():
        if isinstance(module, QuantizedLinear):
            found += module.in_features * module.out_features + (0 if module.bias is None else len(module.bias))
        else:
            found += sum(weight.numel() for weight in module.parameters(recurse=False))
    return found


def frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def bitsandbytes() -> Any:
    """Its functions. Raises UserError where it is not installed."""
    try:
        import bitsandbytes.functional as functions  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise UserError(
            "model.quantize: nf4 needs bitsandbytes: pip install 'sipo[8bit]'. int8 and fp8 need nothing"
        ) from None
    return functions
