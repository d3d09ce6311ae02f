"""Wan 2.2 TI2V-5B with a given first frame: the source's latents are the video's first ones, at timestep 0. The others are trained."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Sizes, draw, meta, standardized, vae_moments
from sipo.backbones.wan_source import WanSource
from sipo.errors import UserError
from sipo.size import Size

GIVEN = 1  # latent frames, of one frame of the video


class WanFirstFrame(WanSource):
    """`WanImageToVideoPipeline` with `expand_timesteps` (see `sipo.backbones.family.SourceAdapter` and `PartAdapter`): as Wan, with
    `source_latents` (B, C, 1, h, w).

    The pipeline replaces the first latent frame by the source's before every step and at the end: whatever the network predicts
    there is dropped. So x0, its noise and the prediction are those of the frames that follow, (B, C, f - 1, h, w), and every mean
    over them leaves the given frame out.
    """

    def require_channels(self) -> None:
        """Raises UserError for a transformer that reads more than the latents."""
        found = self.transformer["in_channels"]
        if found != self.channels:
            raise UserError(
                f"its transformer reads {found} channels and its VAE has {self.channels}; with expand_timesteps in model_index.json "
                "the source is the first latent frame, and brings no channels"
            )

    @property
    def sizes(self) -> Sizes:
        """At least one latent frame follows the given one."""
        return replace(super().sizes, least_frames=GIVEN + self.frame_stride)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        channels, frames, *sides = self.drawn_shape(size)
        return channels, frames - GIVEN, *sides

    def drawn_shape(self, size: Size) -> tuple[int, ...]:
        return super().latent_shape(size)

    def trained(self, latents: Tensor) -> Tensor:
        return latents[:, :, GIVEN:]

    def whole(self, x0: Tensor, conditioning: Conditioning) -> Tensor:
        return torch.cat([conditioning["source_latents"].to(x0.dtype), x0], dim=2)  # (B, C, f, h, w)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, f - 1, h, w). The network sees all f frames, each token with a timestep: 0 for the source's, t for others."""
        latents = self.whole(xt, conditioning)
        each = math.prod(xt.shape[3:]) // math.prod(self.transformer["patch_size"])  # tokens of a latent frame
        given, others = GIVEN * each, xt.shape[2] * each
        timesteps = torch.cat([t.new_zeros(len(t), given), t[:, None].expand(-1, others)], dim=1)
        hidden = conditioning["encoder_hidden_states"]
        velocity = denoiser(
            hidden_states=latents.to(hidden.dtype), timestep=timesteps, encoder_hidden_states=hidden
        ).sample
        return self.trained(velocity)

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, C, f - 1, h, w). The VAE is causal, so it encodes the first frame with the others."""
        return super().encode_media(vae, pixels)[:, :, :, GIVEN:]

    def encode_source(self, pipeline: Any, pixels: Tensor, prompts: list[str], size: Size) -> Conditioning:
        """The VAE's mean of a video of one frame, standardized: the pipeline takes the posterior's mode."""
        moments = vae_moments(pipeline.vae, pixels.unsqueeze(2))
        return {"source_latents": standardized(draw(moments, torch.zeros_like(moments[:, 0])), self.vae)}

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        channels, _, *sides = self.drawn_shape(size)
        return {"source_latents": meta(batch, channels, GIVEN, *sides)}
