"""Wan 2.1 I2V and 2.2 I2V-A14B, image to video: Wan whose transformers read the source's latents, and where it is, as channels more.

Those of 2.1 attend to what CLIP sees of the source as well. TI2V-5B, whose source is its first latent frame, has the same pipeline.
"""

from dataclasses import replace
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from transformers import CLIPVisionModel

from sipo.backbones.family import Conditioning, Configs, draw, meta, standardized, vae_moments
from sipo.backbones.pictures import as_pictures
from sipo.backbones.wan import WAN
from sipo.backbones.wan_first_frame import WanFirstFrame
from sipo.backbones.wan_source import WanSource
from sipo.errors import UserError
from sipo.size import Size


class WanImageToVideo(WanSource):
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
                f"its transformer reads {found} channels; expected {expected}, of latents, mask and source. "
                "A model whose source is its first latent frame has expand_timesteps in model_index.json"
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

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        found = {"source_latents": meta(batch, *self.latent_shape(size))}
        if self.clip is not None:
            shape = batch, self.tokens["image_encoder"], self.clip["hidden_size"]
            found["encoder_hidden_states_image"] = meta(*shape, dtype=dtype)
        return found


def image_to_video(configs: Configs) -> WanSource:
    """By how the transformer reads the source: as its first latent frame (`expand_timesteps`), or in channels of its own."""
    return WanFirstFrame(configs) if configs["model_index"].get("expand_timesteps") else WanImageToVideo(configs)


WAN_I2V = replace(
    WAN,
    pipeline=WanImageToVideoPipeline,
    adapter=image_to_video,
    optional=("transformer_2", "image_encoder", "image_processor"),
    extras={"image_encoder": (CLIPVisionModel,)},
    processors=("image_processor",),
)
"""Wan 2.1 I2V, 2.2 I2V-A14B and TI2V-5B with a first frame: a flow-matching transformer, or two by timestep; UMT5, of 2.1 also CLIP."""
