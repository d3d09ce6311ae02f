"""A loaded model, as training, caching and generation see it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sipo.backbones.adapter import Adapter, Conditioning, Media, Sampler
from sipo.backbones.parts import Parts
from sipo.schedule import Schedule
from sipo.size import Size


@dataclass(frozen=True)
class Backbone:
    """A family's adapter over the parts of a checkpoint, at one size. The encoders around the denoiser stay frozen."""

    parts: Parts
    adapter: Adapter
    size: Size
    schedule: Schedule

    @property
    def denoiser(self) -> nn.Module:
        """The network that is trained."""
        return self.parts.denoiser

    @property
    def lora_targets(self) -> tuple[str, ...]:
        return self.adapter.lora_targets

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Text conditioning as the family's pipeline passes it, (B, ...) each."""
        return self.adapter.encode_prompts(prompts)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) or (B, F, 3, H, W) in [-1, 1] -> mean and log-variance of the VAE, (B, 2, ...), float32."""
        return self.adapter.encode_media(pixels)

    def conditioning_of(self, geometry: Tensor) -> Conditioning:
        """Of how each picture was cut: geometry (B, 4) is original height, original width, crop top, crop left."""
        return self.adapter.conditioning_of(geometry, self.size)

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Draw x0 (B, ...) from the moments with the given standard-normal noise, scaled as the denoiser wants."""
        return self.adapter.latents(moments, noise)

    def predict(self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's raw prediction, shape of xt; `denoiser` may be wrapped, or a copy."""
        return self.adapter.predict(denoiser, xt, t, conditioning, self.size, self.parts.model.guidance)

    def sampler(self, num_inference_steps: int, guidance_scale: float) -> Sampler:
        """Media by the checkpoint's own pipeline and scheduler; a CPU generator a seed, so that devices agree."""

        @torch.no_grad()
        def sample(prompts: list[str], seeds: list[int]) -> Sequence[Media]:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            training, half = self.denoiser.training, self.parts.dtype != torch.float32
            self.denoiser.eval()
            with self.encoders(), torch.autocast(self.denoiser.device.type, self.parts.dtype, enabled=half):
                media = self.adapter.sample(prompts, generators, num_inference_steps, guidance_scale, self.size)
            self.denoiser.train(training)
            return media

        return sample

    def encoders(self) -> AbstractContextManager[None]:
        """The VAE and the text encoders in memory while the context lasts, wherever they were before."""
        return self.parts.encoders()

    def fingerprint(self) -> dict[str, str]:
        """What identifies the encoders, for caches."""
        return self.parts.fingerprint()

    def merge_lora(self, folder: Path) -> None:
        """Add the adapter that `save_lora` wrote to the denoiser's own weights."""
        self.parts.merge_lora(folder)

    def save_lora(self, folder: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write adapter weights that plain diffusers loads with `load_lora_weights`."""
        self.parts.save_lora(folder, state, metadata)

    def save_full(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the whole pipeline, which `DiffusionPipeline.from_pretrained` loads, with these of the denoiser."""
        self.parts.save_full(folder, weights)
