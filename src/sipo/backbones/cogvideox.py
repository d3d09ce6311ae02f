"""CogVideoX-2B and 5B: v-prediction with zero terminal SNR over video latents, frames first, with a T5 text encoder."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from diffusers import CogVideoXDDIMScheduler
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor, nn

from sipo.backbones.adapter import Conditioning, Media, draw, vae_moments
from sipo.backbones.components import Layout
from sipo.backbones.parts import Parts
from sipo.errors import UserError
from sipo.schedule import VPSchedule
from sipo.size import Size


class CogVideoX:
    """Adapter for `CogVideoXPipeline` (see `sipo.backbones.adapter.Adapter`). Latents are (B, F, C, h, w)."""

    layout: ClassVar[Layout] = Layout("transformer", tiled_vae=True)
    lora_targets: ClassVar[tuple[str, ...]] = ("to_k", "to_q", "to_v", "to_out.0")

    def __init__(self, parts: Parts) -> None:
        self.parts, self.vae_config, self.config = parts, parts.vae_config, parts.denoiser.config
        if self.config.get("patch_size_t"):
            raise UserError(f"model.path: {parts.model.path} is a CogVideoX 1.5, which is not supported; 1.0 is")
        self.stride = 2 ** (len(self.vae_config["block_out_channels"]) - 1)
        self.frame_stride = int(self.vae_config["temporal_compression_ratio"])

    def require(self, size: Size) -> None:
        step = self.stride * self.config["patch_size"]
        if size.height % step or size.width % step:
            raise UserError(f"data.resolution: this model takes sides that are multiples of {step}, not {size}")
        if (size.num_frames - 1) % self.frame_stride:
            raise UserError(
                f"data.num_frames: this model takes {self.frame_stride} n + 1 frames, not {size.num_frames}"
            )
        own = self.config["sample_height"] * self.stride, self.config["sample_width"] * self.stride
        if self.config["use_learned_positional_embeddings"] and (size.height, size.width) != own:
            raise UserError(f"data.resolution: this model's positions are learned for {own[0]} x {own[1]}, not {size}")

    def schedule(self, size: Size) -> VPSchedule:
        """The table with its SNR shift and zero terminal SNR, as the family's DDIM scheduler computes it."""
        scheduler = CogVideoXDDIMScheduler.from_config(self.parts.pipeline.scheduler.config)
        return VPSchedule(scheduler.alphas_cumprod, scheduler.config["prediction_type"])

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 226, D) of T5."""
        hidden, _ = self.parts.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.config["max_text_seq_length"],
            device=self.parts.denoiser.device,
        )  # fmt: skip
        return {"encoder_hidden_states": hidden}

    def conditioning_of(self, geometry: Tensor, size: Size) -> Conditioning:
        return {}

    def encode_media(self, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, f, C, h, w)."""
        return vae_moments(self.parts.pipeline.vae, pixels.transpose(1, 2)).transpose(2, 3)

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = scale (mean + std noise), (B, f, C, h, w)."""
        return draw(moments, noise) * self.vae_config["scaling_factor"]

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """v, (B, f, C, h, w)."""
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(
            hidden_states=xt.to(hidden.dtype), timestep=t, encoder_hidden_states=hidden,
            image_rotary_emb=self._rotary(xt),
        ).sample  # fmt: skip

    def sample(
        self, prompts: list[str], generators: list[torch.Generator], steps: int, guidance: float, size: Size
    ) -> Sequence[Media]:
        return self.parts.pipeline(
            prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance, height=size.height,
            width=size.width, num_frames=size.num_frames, max_sequence_length=self.config["max_text_seq_length"],
        ).frames  # fmt: skip

    def _rotary(self, xt: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of the positions (tokens, head dim); None for 2B, whose positions are fixed sines."""
        if not self.config["use_rotary_positional_embeddings"]:
            return None
        patch = self.config["patch_size"]
        grid = xt.shape[3] // patch, xt.shape[4] // patch
        base = self.config["sample_width"] // patch, self.config["sample_height"] // patch
        return get_3d_rotary_pos_embed(
            embed_dim=self.config["attention_head_dim"], grid_size=grid, temporal_size=xt.shape[1],
            crops_coords=get_resize_crop_region_for_grid(grid, *base), device=xt.device,
        )  # fmt: skip
