"""Wan2.1 text-to-video: a flow transformer over video latents, channels first, with a UMT5 text encoder."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from sipo.backbones.adapter import Conditioning, Media, draw, vae_moments
from sipo.backbones.components import Layout
from sipo.backbones.parts import Parts
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 512


class Wan:
    """Adapter for `WanPipeline` with one transformer (see `sipo.backbones.adapter.Adapter`). Latents: (B, C, f, h, w)."""

    layout: ClassVar[Layout] = Layout("transformer", vae_dtype=torch.float32, tiled_vae=True)
    lora_targets: ClassVar[tuple[str, ...]] = ("to_k", "to_q", "to_v", "to_out.0")

    def __init__(self, parts: Parts) -> None:
        self.parts, self.vae_config, self.config = parts, parts.vae_config, parts.denoiser.config
        if parts.pipeline.config.get("boundary_ratio") or parts.pipeline.config.get("expand_timesteps"):
            raise UserError(f"model.path: {parts.model.path} is a Wan 2.2, which is not supported; Wan 2.1 is")
        statistics = torch.tensor([self.vae_config["latents_mean"], self.vae_config["latents_std"]])
        self.mean, self.std = statistics.reshape(2, 1, -1, 1, 1, 1)  # (1, C, 1, 1, 1) each
        self.stride = int(self.vae_config.get("scale_factor_spatial") or 8)
        self.frame_stride = int(self.vae_config.get("scale_factor_temporal") or 4)

    def require(self, size: Size) -> None:
        _, patch_height, patch_width = self.config["patch_size"]
        if size.height % (self.stride * patch_height) or size.width % (self.stride * patch_width):
            step = self.stride * patch_height
            raise UserError(f"data.resolution: this model takes sides that are multiples of {step}, not {size}")
        if (size.num_frames - 1) % self.frame_stride:
            raise UserError(
                f"data.num_frames: this model takes {self.frame_stride} n + 1 frames, not {size.num_frames}"
            )

    def schedule(self, size: Size) -> FlowSchedule:
        """The static shift of the checkpoint's scheduler: `flow_shift` of UniPC, `shift` of the Euler scheduler."""
        config = self.parts.pipeline.scheduler.config
        return FlowSchedule(config["num_train_timesteps"], config.get("flow_shift") or config.get("shift") or 1.0)

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 512, D) of UMT5, zeros after the end of the text."""
        hidden, _ = self.parts.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS,
            device=self.parts.denoiser.device,
        )  # fmt: skip
        return {"encoder_hidden_states": hidden}

    def conditioning_of(self, geometry: Tensor, size: Size) -> Conditioning:
        return {}

    def encode_media(self, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, C, f, h, w)."""
        return vae_moments(self.parts.pipeline.vae, pixels.transpose(1, 2))

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = (mean + std noise - latents_mean) / latents_std, channel by channel, (B, C, f, h, w)."""
        mean, std = (values.to(moments) for values in (self.mean, self.std))
        return (draw(moments, noise) - mean) / std

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, f, h, w)."""
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(hidden_states=xt.to(hidden.dtype), timestep=t, encoder_hidden_states=hidden).sample

    def sample(
        self, prompts: list[str], generators: list[torch.Generator], steps: int, guidance: float, size: Size
    ) -> Sequence[Media]:
        return self.parts.pipeline(
            prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance, height=size.height,
            width=size.width, num_frames=size.num_frames, max_sequence_length=MAX_TOKENS, output_type="pil",
        ).frames  # fmt: skip
