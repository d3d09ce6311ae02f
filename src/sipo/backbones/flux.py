"""FLUX.1-dev: a guidance-distilled flow transformer over latents packed 2 x 2, with CLIP and T5 text encoders."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor, nn

from sipo.backbones.adapter import Conditioning, Media, draw, vae_moments
from sipo.backbones.components import Layout
from sipo.backbones.parts import Parts
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 512  # of T5, the pipeline's default


class Flux:
    """Adapter for `FluxPipeline` (see `sipo.backbones.adapter.Adapter`). Latents stay (B, C, h, w) outside `predict`."""

    layout: ClassVar[Layout] = Layout("transformer")
    # The attention projections of both streams, as diffusers' DreamBooth script adapts them.
    lora_targets: ClassVar[tuple[str, ...]] = (
        "to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out",
    )  # fmt: skip

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.vae_config = parts.vae_config
        self.stride = 2 ** (len(self.vae_config["block_out_channels"]) - 1)

    def require(self, size: Size) -> None:
        if size.height % (2 * self.stride) or size.width % (2 * self.stride):
            raise UserError(f"data.resolution: FLUX takes sides that are multiples of {2 * self.stride}, not {size}")

    def schedule(self, size: Size) -> FlowSchedule:
        """Dynamic shift e^mu, mu linear in the number of image tokens; else the scheduler's static shift."""
        config = self.parts.pipeline.scheduler.config
        shift = config.get("shift", 1.0)
        if config.get("use_dynamic_shifting"):
            tokens = (size.height // (2 * self.stride)) * (size.width // (2 * self.stride))
            keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            values = [config.get(key, default) for key, default in zip(keys, (256, 4096, 0.5, 1.15), strict=True)]
            mu = calculate_shift(tokens, *values)
            shift = math.exp(mu)
        return FlowSchedule(config["num_train_timesteps"], shift)

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, L, D) of T5, `pooled_projections` (B, D) of CLIP."""
        hidden, pooled, _ = self.parts.pipeline.encode_prompt(
            prompts, device=self.parts.denoiser.device, max_sequence_length=MAX_TOKENS
        )
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}

    def conditioning_of(self, geometry: Tensor, size: Size) -> Conditioning:
        return {}

    def encode_media(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, C, h, w)."""
        return vae_moments(self.parts.pipeline.vae, pixels)

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = scale (mean + std noise - shift), (B, C, h, w)."""
        return (draw(moments, noise) - self.vae_config["shift_factor"]) * self.vae_config["scaling_factor"]

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w). The network takes t / 1000, positions of the 2 x 2 packs, and a guidance."""
        batch, channels, height, width = xt.shape
        hidden = conditioning["encoder_hidden_states"]
        tells_guidance = self.parts.denoiser.config["guidance_embeds"]
        packed = denoiser(
            hidden_states=FluxPipeline._pack_latents(xt.to(hidden.dtype), batch, channels, height, width),
            timestep=t / 1000,
            guidance=torch.full((batch,), guidance, device=xt.device) if tells_guidance else None,
            pooled_projections=conditioning["pooled_projections"],
            encoder_hidden_states=hidden,
            txt_ids=torch.zeros(hidden.shape[1], 3, device=xt.device),
            img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, xt.device, torch.float32),
        ).sample
        return unpack(packed, height, width)

    def sample(
        self, prompts: list[str], generators: list[torch.Generator], steps: int, guidance: float, size: Size
    ) -> Sequence[Media]:
        return self.parts.pipeline(
            prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance,
            height=size.height, width=size.width, max_sequence_length=MAX_TOKENS,
        ).images  # fmt: skip


def unpack(packed: Tensor, height: int, width: int) -> Tensor:
    """(B, h/2 w/2, 4 C) -> (B, C, h, w): the inverse of the pipeline's packing."""
    batch, _, channels = packed.shape
    blocks = packed.reshape(batch, height // 2, width // 2, channels // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)
