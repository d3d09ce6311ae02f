"""Low-rank adapters on a meta network, with the shapes that peft gives them (peft itself belongs to training)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sipo.errors import UserError


def adapter_shapes(module: nn.Module, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B on a linear layer or a convolution, r (in + out) entries for the former."""
    if isinstance(module, nn.Linear):
        return (rank, module.in_features), (module.out_features, rank)
    ones = (1,) * len(module.kernel_size)
    return (rank, module.in_channels, *module.kernel_size), (module.out_channels, rank, *ones)


def matched_modules(denoiser: nn.Module, targets: Iterable[str]) -> dict[str, nn.Module]:
    """The linear layers and convolutions whose name is, or ends in, a target, as peft matches lists of names.

    Raises UserError when a target module is of another kind, or nothing matches.
    """
    targets = list(targets)
    named = {name: module for name, module in denoiser.named_modules()
             if any(name == target or name.endswith(f".{target}") for target in targets)}  # fmt: skip
    if not named:
        raise UserError(f"policy.target_modules: no module of the denoiser is called {', '.join(targets)}")
    for name, module in named.items():
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise UserError(f"policy.target_modules: {name} is a {type(module).__name__}; adapters go on linear layers")
    return named


def add_adapters(denoiser: nn.Module, targets: Iterable[str], rank: int) -> list[nn.Parameter]:
    """Freeze the network and put an adapter on every target: y = W x + B A x, A and B float32. Returns A's and B's."""
    denoiser.requires_grad_(False)
    weights = []
    for module in matched_modules(denoiser, targets).values():
        down, up = (nn.Parameter(torch.empty(shape, device="meta")) for shape in adapter_shapes(module, rank))
        module.register_forward_hook(_adapter(down, up))
        weights += [down, up]
    return weights


def _adapter(down: nn.Parameter, up: nn.Parameter):
    def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x = args[0].to(down.dtype)  # as peft does, before autocast takes it back
        if isinstance(module, nn.Linear):
            return out + F.linear(F.linear(x, down), up)
        convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.ndim]
        return out + convolve(convolve(x, down, None, module.stride, module.padding), up)

    return hook
