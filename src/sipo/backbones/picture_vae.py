"""The VAE's side of an adapter, for families whose pictures pass through an `AutoencoderKL` with one scaling factor."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sipo.backbones.family import Media, draw, scaled, unscaled, vae_moments


class PictureVae:
    """Three methods of `sipo.backbones.family.Adapter`, for latents (B, C, h, w). `vae`: the VAE's config."""

    vae: dict[str, Any]

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 (B, C, h, w) from moments (B, 2, C, h, w), scaled for the denoiser."""
        return scaled(draw(moments, noise), self.vae)

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> mean and log-variance (B, 2, C, h, w), float32."""
        return vae_moments(vae, pixels)

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        """Pictures of x0 (B, C, h, w), as the pipeline ends its own loop."""
        latents = unscaled(x0, self.vae).to(pipeline.vae.dtype)
        return pipeline.image_processor.postprocess(pipeline.vae.decode(latents).sample)
