"""What training, caching and generation ask of a model family."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from sipo.schedule import FlowSchedule, VPSchedule

Conditioning = dict[str, Tensor]  # what the denoiser is told besides (xt, t); every tensor (B, ...)
Sampler = Callable[[list[str], list[int]], list[Image.Image]]  # (prompts, seeds) -> images


class Backbone(Protocol):
    """A loaded model. `denoiser` is the network that is trained; the encoders around it stay frozen."""

    schedule: VPSchedule | FlowSchedule
    denoiser: nn.Module
    resolution: int  # pixels, the side of the square that the model was made for
    lora_targets: tuple[str, ...]

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Text conditioning as the family's pipeline passes it."""
        ...

    def encode_media(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] -> moments (B, 2, C, h, w), float32: mean and log-variance of the VAE."""
        ...

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Draw x0 (B, C, h, w) from the moments with the given standard-normal noise, scaled as the denoiser wants."""
        ...

    def predict(self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's raw prediction, shape of xt."""
        ...

    def without_encoders(self) -> None:
        """Give the memory of the VAE and the text encoders back."""
        ...

    def encoders(self) -> AbstractContextManager[None]:
        """The VAE and the text encoders in memory while the context lasts, wherever they were before."""
        ...

    def sampler(self, num_inference_steps: int, guidance_scale: float, resolution: int) -> Sampler:
        """Images by the family's own pipeline and scheduler, one generator a seed."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """What identifies the encoders, for caches."""
        ...

    def load_lora(self, folder: Path) -> None:
        """Put the adapter that `save_lora` wrote onto the denoiser."""
        ...

    def save_lora(self, folder: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write adapter weights that plain diffusers loads with `load_lora_weights`."""
        ...

    def save_full(self, folder: Path) -> None:
        """Write the whole pipeline, which `DiffusionPipeline.from_pretrained` loads."""
        ...
