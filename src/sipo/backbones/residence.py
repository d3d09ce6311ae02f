"""Who is on the device while samples are made: text encoders for the prompts, then the denoiser, then the VAE."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

SCARCE = 0.25  # of the device's memory that is free


def is_scarce(device: torch.device) -> bool:
    """Whether a GPU has little memory left."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free < SCARCE * total


@contextlib.contextmanager
def in_turn(
    texts: Sequence[nn.Module], vae: Any, denoisers: Sequence[nn.Module], device: torch.device, always: bool
) -> Iterator[None]:
    """Text encoders and VAE leave the device when a denoiser first runs, the VAE until it decodes and the others until the context ends.

    T5 takes 9 to 11 GiB of it; there and back is a second or two of the minutes that a video takes. always: also where memory
    is not scarce.
    """
    encoders = [*texts, vae]
    staying = list(encoders)

    def leave(*_: object) -> None:
        if always or is_scarce(device):
            while staying:
                staying.pop().to("cpu")
        staying.clear()

    decode = vae.decode

    def at_home(*args: Any, **keys: Any) -> Any:
        vae.to(device)
        return decode(*args, **keys)

    hooks = [network.register_forward_pre_hook(leave) for network in denoisers]
    vae.decode = at_home
    try:
        yield
    finally:
        vae.decode = decode
        for hook in hooks:
            hook.remove()
        for encoder in encoders:
            encoder.to(device)
