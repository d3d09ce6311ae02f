"""Wan 2.2 I2V-A14B, image to video: Wan whose transformers read the source's latents, and where it is, as channels more."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Media, draw, meta, standardized, vae_moments
from sipo.backbones.wan import MAX_TOKENS, WAN, Wan
from sipo.errors import UserError
from sipo.size import Size


class WanImageToVideo(Wan):
    """`WanImageToVideoPipeline` (see `sipo.backbones.family.SourceAdapter`): as Wan, with `source_latents` (B, C, f, h, w).

    The source is the first frame, grey follows.
    """

    def require_channels(self) -> None:
        """Raises UserError for what reads a source otherwise than by channels."""
        found, expected = self.transformer["in_channels"], 2 * self.channels + self.frame_stride
        if self.transformer.get("image_dim") is not None:
            raise UserError("its transformer reads the source through CLIP too, as Wan2.1's, which is not supported")
        if found != expected:
            raise UserError(
                f"its transformer reads {found} channels; expected {expected}, of latents, mask and source. Wan2.2 TI2V-5B with a "
                "given first frame is not supported"
            )

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, f, h, w), of channels x_t, mask and source. The mask (B, 4, f, h, w) is 1 on the first frame."""
        source = conditioning["source_latents"].to(xt.dtype)
        source = source[(..., *map(slice, xt.shape[2:]))]  # of `denoisers.Switched`'s smallest sample
        mask = torch.zeros_like(source[:, :1]).repeat_interleave(self.frame_stride, 1)
        mask[:, :, 0] = 1
        hidden = conditioning["encoder_hidden_states"]
        channels = torch.cat([xt, mask, source], dim=1).to(hidden.dtype)
        return denoiser(hidden_states=channels, timestep=t, encoder_hidden_states=hidden).sample

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """As Wan's. By the text-to-video pipeline's method, because the other's requires ftfy, which this one does without."""
        hidden = WanPipeline._get_t5_prompt_embeds(
            pipeline, prompts, max_sequence_length=MAX_TOKENS, device=pipeline.transformer.device
        )
        return {"encoder_hidden_states": hidden}

    def encode_source(self, pipeline: Any, pixels: Tensor, prompts: list[str], size: Size) -> Conditioning:
        """The VAE's mean of a video that begins with the source, standardized: the pipeline takes the posterior's mode."""
        video = pixels.new_zeros(len(pixels), 3, size.num_frames, size.height, size.width)
        video[:, :, 0] = pixels
        moments = vae_moments(pipeline.vae, video)
        return {"source_latents": standardized(draw(moments, torch.zeros_like(moments[:, 0])), self.vae)}

    def source_tokens(self, size: Size) -> int:
        return 0

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        return {"source_latents": meta(batch, *self.latent_shape(size))}

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
        sources: Tensor | None = None,
    ) -> Sequence[Media]:
        """One after the other: the pipeline takes one source a call."""
        assert sources is not None
        (text,), (empty,) = (self.encode_prompts(pipeline, texts).values() for texts in (prompts, [""]))
        return [
            pipeline(
                image=(source[None] + 1) / 2, prompt_embeds=hidden[None], negative_prompt_embeds=empty,
                generator=[generator], num_inference_steps=steps, guidance_scale=guidance, height=size.height,
                width=size.width, num_frames=size.num_frames, output_type="pil",
            ).frames[0]
            for source, hidden, generator in zip(sources, text, generators, strict=True)
        ]  # fmt: skip


WAN_I2V = replace(WAN, pipeline=WanImageToVideoPipeline, adapter=WanImageToVideo)
"""Wan 2.2 I2V-A14B, image to video: two flow-matching transformers by timestep; UMT5."""
