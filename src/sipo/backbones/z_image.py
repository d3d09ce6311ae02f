"""Z-Image: a flow transformer over image and text tokens in one stream, with Qwen3 for prompts of any length."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from sipo.backbones.family import (
    Conditioning,
    Configs,
    Family,
    Media,
    Sizes,
    kl_stride,
    meta,
)
from sipo.backbones.picture_vae import PictureVae
from sipo.backbones.prompts import padded, separate
from sipo.backbones.shifts import flow_schedule
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 512  # the pipeline's default
SIDE = 1024  # the pipeline's default
PATCH = 2  # of the two that the pipeline could use, the one that it does


class ZImage(PictureVae):
    """`ZImagePipeline` (see `sipo.backbones.family.Adapter`). Latents: (B, C, h, w)."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]
        if self.transformer.get("siglip_feat_dim"):
            raise UserError("it is a Z-Image-Omni, which is not supported; Z-Image and Z-Image-Turbo are")
        self.stride = kl_stride(configs)

    @property
    def sizes(self) -> Sizes:
        return Sizes(Size(SIDE, SIDE), PATCH * self.stride, PATCH * self.stride)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": MAX_TOKENS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.transformer["in_channels"], size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        hidden = meta(batch, MAX_TOKENS, self.transformer["cap_feat_dim"], dtype=dtype)
        return {"encoder_hidden_states": hidden, "lengths": meta(batch, dtype=torch.int64)}

    def schedule(self, size: Size) -> FlowSchedule:
        """The checkpoint's own shift: 6 (Z-Image) or 3 (Turbo), at every size."""
        tokens = (size.height // (PATCH * self.stride)) * (size.width // (PATCH * self.stride))
        return flow_schedule(self.configs["scheduler"], tokens)

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w). The network takes 1 - s, and gives x_0 - eps of each sample.

        The positions of an image's tokens begin where its text ends, so each text is given at its own length.
        """
        texts = separate(conditioning)
        images = list(xt.to(texts[0].dtype).unsqueeze(2))  # (C, 1, h, w) each
        found = denoiser(images, (1000 - t) / 1000, texts).sample
        return -torch.stack(list(found)).squeeze(2)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 512, D) of Qwen3's last layer but one, zeros after the end; `lengths` (B,)."""
        hidden, _ = pipeline.encode_prompt(
            list(prompts), device=pipeline.transformer.device, do_classifier_free_guidance=False,
            max_sequence_length=MAX_TOKENS,
        )  # fmt: skip # which changes the list
        return padded(hidden, MAX_TOKENS)

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
    ) -> Sequence[Media]:
        """The pipeline counts guidance from 0: text + g (text - empty), with g = guidance - 1."""
        return pipeline(
            list(prompts), generator=generators, num_inference_steps=steps, guidance_scale=max(guidance - 1, 0),
            height=size.height, width=size.width, max_sequence_length=MAX_TOKENS,
        ).images  # fmt: skip


Z_IMAGE = Family(
    pipeline=ZImagePipeline,
    denoisers={"transformer": ZImageTransformer2DModel},
    vae=AutoencoderKL,
    text_encoders=("text_encoder",),
    lora_targets=("to_k", "to_q", "to_v", "to_out.0"),  # as diffusers' DreamBooth script
    adapter=ZImage,
    dtype=torch.bfloat16,
    noise_dtype=torch.float32,
    template=8,  # <|im_start|> user \n ... <|im_end|> \n <|im_start|> assistant \n
)
"""Z-Image: a flow-matching transformer, Qwen3."""
