"""Autocast is for the denoiser: text encoders and the VAE around it compute in the precision of their own weights."""

import functools
from typing import Any

import torch
from torch import Tensor


def outside_autocast(network: Any, method: str) -> None:
    """From now on `network.method` computes outside autocast, on floating-point inputs in the network's own dtype.

    A float32 VAE that decodes under float16's autocast overflows: black pictures. So does T5.
    """
    original = getattr(network, method)

    def own(value: Any) -> Any:
        return value.to(network.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    @functools.wraps(original)
    def call(*args: Any, **keys: Any) -> Any:
        with torch.autocast(network.device.type, enabled=False):
            return original(*map(own, args), **{name: own(value) for name, value in keys.items()})

    setattr(network, method, call)
