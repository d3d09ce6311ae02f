"""What the toolkit asks of a model family, and nothing more: an adapter never noises, collates, or knows an objective."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from sipo.backbones.components import Layout
from sipo.backbones.parts import Parts
from sipo.schedule import Schedule
from sipo.size import Size

Conditioning = dict[str, Tensor]  # what the denoiser is told besides (xt, t); every tensor (B, ...)
Media = Image.Image | list[Image.Image]  # a picture, or the frames of a video
Sampler = Callable[[list[str], list[int]], Sequence[Media]]  # (prompts, seeds) -> media


class Adapter(Protocol):
    """One model family over the parts of its diffusers pipeline. Built as `Adapter(parts)`."""

    layout: ClassVar[Layout]
    lora_targets: ClassVar[tuple[str, ...]]  # what LoRA adapts by default

    def __init__(self, parts: Parts) -> None: ...

    def require(self, size: Size) -> None:
        """Raises UserError for a size that the network cannot take."""
        ...

    def schedule(self, size: Size) -> Schedule:
        """The path of the checkpoint's own scheduler, with its shift at this size."""
        ...

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Text conditioning as the family's pipeline passes it."""
        ...

    def conditioning_of(self, geometry: Tensor, size: Size) -> Conditioning:
        """What the denoiser is told of how a picture was cut: geometry (B, 4) is original height, width, crop top, left."""
        ...

    def encode_media(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) or (B, F, 3, H, W) in [-1, 1] -> mean and log-variance of the VAE, (B, 2, ...), float32."""
        ...

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 (B, ...) from the moments with the given standard-normal noise, scaled as the denoiser wants."""
        ...

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The network's raw prediction, shape of xt. `guidance`: told to guidance-distilled networks, else unused."""
        ...

    def sample(
        self, prompts: list[str], generators: list[torch.Generator], steps: int, guidance: float, size: Size
    ) -> Sequence[Media]:
        """Media by the family's own pipeline and scheduler."""
        ...


def vae_moments(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Mean and log-variance (B, 2, ...), float32, of pixels in the VAE's own layout."""
    posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    return torch.stack([posterior.mean, posterior.logvar], dim=1).float()


def draw(moments: Tensor, noise: Tensor) -> Tensor:
    """mean + std noise, the VAE's latent before any scaling."""
    mean, logvar = moments.unbind(1)
    return mean + torch.exp(0.5 * logvar) * noise
