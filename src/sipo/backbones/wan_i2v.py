"""Wan 2.1 I2V and 2.2 I2V-A14B, image to video: Wan whose transformers read the source's latents, and where it is, as channels more.

Those of 2.1 attend to what CLIP sees of the source as well.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from transformers import CLIPVisionModel

from sipo.backbones.family import Conditioning, Configs, Media, draw, meta, standardized, vae_moments
from sipo.backbones.pictures import as_pictures
from sipo.backbones.wan import MAX_TOKENS, WAN, Wan
from sipo.errors import UserError
from sipo.size import Size


class WanImageToVideo(Wan):
    """`WanImageToVideoPipeline` (see `sipo.backbones.family.SourceAdapter`): as Wan, with `source_latents` (B, C, f, h, w); of 2.1
    also `encoder_hidden_states_image` (B, 257, 1280).

    The source is the first frame, grey follows.
    """

    def __init__(self, configs: Configs) -> None:
        self.clip = configs.get("image_encoder") if configs["transformer"].get("image_dim") is not None else None
        super().__init__(configs)
        self.require_clip(configs["model_index"])

    def require_channels(self) -> None:
        """Raises UserError for what reads a source otherwise than by channels."""
        found, expected = self.transformer["in_channels"], 2 * self.channels + self.frame_stride
        if found != expected:
            raise UserError(
                f"its transformer reads {found} channels; expected {expected}, of latents, mask and source. Wan2.2 TI2V-5B with a "
                "given first frame is not supported"
            )

    def require_clip(self, index: dict[str, Any]) -> None:
        """Raises UserError for a transformer that attends to what CLIP sees, and no CLIP of its width; or to two pictures."""
        width = self.transformer.get("image_dim")
        if width is None:
            return
        if self.transformer.get("pos_embed_seq_len") is not None:
            raise UserError(
                "its transformer reads a first and a last frame, as Wan2.1's FLF2V does; a last frame is not supported"
            )
        missing = [part for part in ("image_encoder", "image_processor") if not (index.get(part) or [None])[0]]
        if self.clip is None or missing:
            raise UserError(
                f"its transformer reads the source through CLIP too, and its model_index.json names no {' and no '.join(missing)}"
            )
        if self.clip["hidden_size"] != width:
            raise UserError(
                f"its transformer reads CLIP's features of width {width}, and those of its image_encoder have width "
                f"{self.clip['hidden_size']}"
            )

    @property
    def tokens(self) -> dict[str, int]:
        """CLIP's are its patches and the one of the class."""
        if self.clip is None:
            return super().tokens
        return super().tokens | {"image_encoder": (self.clip["image_size"] // self.clip["patch_size"]) ** 2 + 1}

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
        seen = conditioning.get("encoder_hidden_states_image")
        return denoiser(
            hidden_states=channels, timestep=t, encoder_hidden_states=hidden,
            encoder_hidden_states_image=None if seen is None else seen.to(hidden.dtype),
        ).sample  # fmt: skip

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """As Wan's. By the text-to-video pipeline's method, because the other's requires ftfy, which this one does without."""
        hidden = WanPipeline._get_t5_prompt_embeds(
            pipeline, prompts, max_sequence_length=MAX_TOKENS, device=pipeline.transformer.device
        )
        return {"encoder_hidden_states": hidden}

    def encode_source(self, pipeline: Any, pixels: Tensor, prompts: list[str], size: Size) -> Conditioning:
        """The VAE's mean of a video that begins with the source, standardized: the pipeline takes the posterior's mode. And, of 2.1,
        the output of CLIP's last layer but one, of the source scaled and cropped to CLIP's square."""
        video = pixels.new_zeros(len(pixels), 3, size.num_frames, size.height, size.width)
        video[:, :, 0] = pixels
        moments = vae_moments(pipeline.vae, video)
        found = {"source_latents": standardized(draw(moments, torch.zeros_like(moments[:, 0])), self.vae)}
        if self.clip is not None:
            found["encoder_hidden_states_image"] = pipeline.encode_image(
                as_pictures(pixels), pipeline.transformer.device
            )
        return found

    def source_tokens(self, size: Size) -> int:
        return 0

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        found = {"source_latents": meta(batch, *self.latent_shape(size))}
        if self.clip is not None:
            shape = batch, self.tokens["image_encoder"], self.clip["hidden_size"]
            found["encoder_hidden_states_image"] = meta(*shape, dtype=dtype)
        return found

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
                image=picture, prompt_embeds=hidden[None], negative_prompt_embeds=empty,
                generator=[generator], num_inference_steps=steps, guidance_scale=guidance, height=size.height,
                width=size.width, num_frames=size.num_frames, output_type="pil",
            ).frames[0]
            for picture, hidden, generator in zip(as_pictures(sources), text, generators, strict=True)
        ]  # fmt: skip


WAN_I2V = replace(
    WAN,
    pipeline=WanImageToVideoPipeline,
    adapter=WanImageToVideo,
    optional=("transformer_2", "image_encoder", "image_processor"),
    extras={"image_encoder": (CLIPVisionModel,)},
    processors=("image_processor",),
)
"""Wan 2.1 I2V and 2.2 I2V-A14B, image to video: one flow-matching transformer and CLIP, or two by timestep; UMT5."""
