"""Qwen-Image-Edit: Qwen-Image that edits. Qwen2.5-VL reads the source with the prompt; the source's latents follow the noisy ones as tokens."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus
from PIL import Image
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Media, draw, meta, standardized, vae_moments
from sipo.backbones.flux import pack, unpack
from sipo.backbones.pictures import as_pictures
from sipo.backbones.prompts import padded
from sipo.backbones.qwen_image import MAX_TOKENS, NEGATIVE, QWEN_IMAGE, QwenImage
from sipo.backbones.qwen_processor import PICTURE, PictureProcessor, place_pictures
from sipo.errors import UserError
from sipo.size import Size


class _Reading(DiffusionPipeline):
    """How the two pipelines differ here from diffusers': their processor needs no torchvision, and pictures have their positions."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> Any:
        if "processor" not in kwargs:
            kwargs["processor"] = PictureProcessor(Path(pretrained_model_name_or_path) / "processor")
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def register_modules(self, **parts: Any) -> None:
        super().register_modules(**parts)
        if parts.get("processor") is not None:  # for the model_index.json that diffusers reads
            self.register_to_config(processor=("transformers", "Qwen2VLProcessor"))
        if parts.get("text_encoder") is not None:
            parts["text_encoder"].register_forward_pre_hook(place_pictures, with_kwargs=True)


class QwenImageEditPipeline(_Reading, diffusers.QwenImageEditPipeline):  # pyright: ignore[reportPrivateImportUsage]
    """diffusers' own, see `_Reading`."""


class QwenImageEditPlusPipeline(_Reading, diffusers.QwenImageEditPlusPipeline):  # pyright: ignore[reportPrivateImportUsage]
    """diffusers' own, see `_Reading`."""


class QwenImageEdit(QwenImage):
    """`QwenImageEditPipeline` (see `sipo.backbones.family.SourceAdapter`): as Qwen-Image, with `source_latents` (B, C, h', w').

    Whatever the size of a sample, the pipeline scales its source to an area of 1024 x 1024 pixels, for the text encoder and the VAE.
    """

    @staticmethod
    def seen_sides(size: Size) -> tuple[int, int]:
        """Height and width of the source that the text encoder sees."""
        width, height, _ = edit.calculate_dimensions(1024 * 1024, size.width / size.height)
        return height, width

    @staticmethod
    def encoded_sides(size: Size) -> tuple[int, int]:
        """Height and width of the source that the VAE encodes."""
        return QwenImageEdit.seen_sides(size)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w): of the first tokens. The source is the second picture, whose sides may be others."""
        source = conditioning["source_latents"].to(xt.dtype)
        noisy = pack(xt)
        shapes = [(1, latents.shape[2] // 2, latents.shape[3] // 2) for latents in (xt, source)]
        packed = self.run(denoiser, torch.cat([noisy, pack(source)], dim=1), shapes, t, conditioning)
        return unpack(packed[:, : noisy.shape[1]], *xt.shape[2:])

    def source_tokens(self, size: Size) -> int:
        """One for 2 x 2 patches of 14 x 14 pixels of the picture, whose sides the processor rounds to that, or fewer."""
        side = self.patch * self.merged
        height, width = self.seen_sides(size)
        return round(height / side) * round(width / side)

    @property
    def patch(self) -> int:
        return self.configs["text_encoder"]["vision_config"].get("patch_size", 14)

    @property
    def merged(self) -> int:
        return self.configs["text_encoder"]["vision_config"].get("spatial_merge_size", 2)

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {}

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """Nothing: the text encoder reads prompts with their sources."""
        return {}

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        length = self.source_tokens(size) + MAX_TOKENS
        height, width = (side // self.stride for side in self.encoded_sides(size))
        return {
            "encoder_hidden_states": meta(batch, length, self.transformer["joint_attention_dim"], dtype=dtype),
            "lengths": meta(batch, dtype=torch.int64),
            "source_latents": meta(batch, self.latent_shape(size)[0], height, width),
        }

    def encode_source(self, pipeline: Any, pixels: Tensor, prompts: list[str], size: Size) -> Conditioning:
        """`encoder_hidden_states` (B, L, D) of Qwen2.5-VL after the template's opening, the picture's tokens and at most 512 others,
        zeros after the end; `lengths` (B,); `source_latents`, the VAE's mean, standardized: the pipeline takes the mode."""
        pictures = as_pictures(pixels)
        read = [self.read(pipeline, *pair, size) for pair in zip(pictures, prompts, strict=True)]
        scaled = pipeline.image_processor.preprocess(pictures, *self.encoded_sides(size))
        moments = vae_moments(pipeline.vae, scaled.unsqueeze(2))  # a video of one frame
        latents = standardized(draw(moments, torch.zeros_like(moments[:, 0])), self.vae).squeeze(2)
        return padded(read, self.source_tokens(size) + MAX_TOKENS) | {"source_latents": latents}

    def read(self, pipeline: Any, picture: Image.Image, prompt: str, size: Size) -> Tensor:
        """(L, D): what the text encoder makes of one prompt and its source. The end of a longer prompt is cut off.

        Raises UserError for a prompt with the token that stands for the picture.
        """
        if PICTURE in prompt:
            raise UserError(f"the prompt {prompt[:60]!r} holds {PICTURE}, which stands for the source; remove it")
        seen = pipeline.image_processor.resize(picture, *self.seen_sides(size))
        hidden, _ = pipeline.encode_prompt(prompt, image=seen, device=pipeline.transformer.device)
        return hidden[0, : self.source_tokens(size) + MAX_TOKENS]

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
        """One after the other: the pipeline takes one source a call. `guidance` is its `true_cfg_scale`.

        All texts first: the text encoder may leave the device when the denoiser runs.
        """
        assert sources is not None
        pictures = as_pictures(sources)
        texts = [self.read(pipeline, *pair, size)[None] for pair in zip(pictures, prompts, strict=True)]
        negative = [
            self.read(pipeline, picture, NEGATIVE, size)[None] if guidance > 1 else None for picture in pictures
        ]
        return [
            pipeline(
                image=picture, prompt_embeds=text, negative_prompt_embeds=empty, generator=[generator],
                num_inference_steps=steps, true_cfg_scale=guidance, height=size.height, width=size.width,
            ).images[0]
            for picture, text, empty, generator in zip(pictures, texts, negative, generators, strict=True)
        ]  # fmt: skip


class QwenImageEditPlus(QwenImageEdit):
    """`QwenImageEditPlusPipeline`, of one source: the text encoder sees it smaller, in an area of 384 x 384 pixels."""

    @staticmethod
    def seen_sides(size: Size) -> tuple[int, int]:
        return _sides(edit_plus.CONDITION_IMAGE_SIZE, size)

    @staticmethod
    def encoded_sides(size: Size) -> tuple[int, int]:
        return _sides(edit_plus.VAE_IMAGE_SIZE, size)


def _sides(area: int, size: Size) -> tuple[int, int]:
    width, height = edit_plus.calculate_dimensions(area, size.width / size.height)
    return height, width


QWEN_IMAGE_EDIT = replace(
    QWEN_IMAGE,
    pipeline=QwenImageEditPipeline,
    adapter=QwenImageEdit,
    processors=("processor",),
    template=7,  # <|vision_start|> <|vision_end|> before a prompt, <|im_end|> \n <|im_start|> assistant \n after it
)
"""Qwen-Image-Edit: edits a source by a prompt; a flow-matching transformer, Qwen2.5-VL."""

QWEN_IMAGE_EDIT_PLUS = replace(
    QWEN_IMAGE_EDIT,
    pipeline=QwenImageEditPlusPipeline,
    adapter=QwenImageEditPlus,
    template=12,  # "Picture 1: " more
)
"""Qwen-Image-Edit-2509 and later, of one source: edits it by a prompt; a flow-matching transformer, Qwen2.5-VL."""
