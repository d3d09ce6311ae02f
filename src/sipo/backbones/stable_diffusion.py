"""Stable Diffusion 1.x, 2.x and XL: UNet, VAE with a scale, one or two CLIP text encoders."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from sipo.backbones.adapter import Conditioning, Media, draw, vae_moments
from sipo.backbones.components import Layout
from sipo.backbones.parts import Parts
from sipo.errors import UserError
from sipo.schedule import VPSchedule
from sipo.size import Size


class StableDiffusion:
    """Adapter for `StableDiffusionPipeline` and `StableDiffusionXLPipeline` (see `sipo.backbones.adapter.Adapter`)."""

    layout: ClassVar[Layout] = Layout("unet")
    # The targets of diffusers' examples/research_projects/diffusion_dpo: the UNet's attention projections.
    lora_targets: ClassVar[tuple[str, ...]] = ("to_k", "to_q", "to_v", "to_out.0")

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.is_xl = "text_encoder_2" in parts.pipeline.config
        self.vae_config = parts.vae_config
        self.stride = 2 ** (len(self.vae_config["block_out_channels"]) - 1)

    def require(self, size: Size) -> None:
        step = self.stride * 2 ** (len(self.parts.denoiser.config["block_out_channels"]) - 1)
        if size.height % step or size.width % step:
            raise UserError(f"data.resolution: this model takes sides that are multiples of {step}, not {size}")

    def schedule(self, size: Size) -> VPSchedule:
        """DDPMScheduler computes alphas_cumprod from any SD scheduler's config, zero terminal SNR included."""
        scheduler = DDPMScheduler.from_config(self.parts.pipeline.scheduler.config)
        return VPSchedule(scheduler.alphas_cumprod, scheduler.config["prediction_type"])

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, L, D); for XL those of both encoders, and `text_embeds` (B, D) of the second."""
        encoded = self.parts.pipeline.encode_prompt(
            prompts, device=self.parts.denoiser.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if self.is_xl:
            return {"encoder_hidden_states": encoded[0], "text_embeds": encoded[2]}
        return {"encoder_hidden_states": encoded[0]}

    def conditioning_of(self, geometry: Tensor, size: Size) -> Conditioning:
        """XL's `time_ids` (B, 6): original size, crop corner, target size (Podell et al. 2023, section 2.2)."""
        if not self.is_xl:
            return {}
        target = geometry.new_tensor([size.height, size.width]).expand(len(geometry), 2)
        return {"time_ids": torch.cat([geometry, target], dim=1)}

    def encode_media(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, C, h, w)."""
        return vae_moments(self.parts.pipeline.vae, pixels)

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = scale (mean + std noise - shift), (B, C, h, w)."""
        shift = self.vae_config.get("shift_factor") or 0.0
        return (draw(moments, noise) - shift) * self.vae_config["scaling_factor"]

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The UNet's raw prediction, (B, C, h, w). Without `time_ids`, XL is told of an uncropped picture."""
        hidden = conditioning["encoder_hidden_states"]
        if not self.is_xl:
            return denoiser(xt, t, encoder_hidden_states=hidden).sample
        time_ids = conditioning.get("time_ids")
        if time_ids is None:
            uncropped = torch.tensor([[size.height, size.width, 0, 0]], dtype=torch.float32, device=xt.device)
            time_ids = self.conditioning_of(uncropped.expand(len(xt), 4), size)["time_ids"]
        added = {"text_embeds": conditioning["text_embeds"], "time_ids": time_ids.to(hidden.dtype)}
        return denoiser(xt, t, encoder_hidden_states=hidden, added_cond_kwargs=added).sample

    def sample(
        self, prompts: list[str], generators: list[torch.Generator], steps: int, guidance: float, size: Size
    ) -> Sequence[Media]:
        return self.parts.pipeline(
            prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance,
            height=size.height, width=size.width,
        ).images  # fmt: skip
