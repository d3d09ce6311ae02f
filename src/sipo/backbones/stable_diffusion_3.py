"""Stable Diffusion 3 and 3.5: a flow transformer (MMDiT) over the latents, with two CLIP text encoders and T5."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline  # pyright: ignore[reportPrivateImportUsage]
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
from sipo.backbones.shifts import flow_schedule
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 256  # of T5, the pipeline's default


class StableDiffusion3(PictureVae):
    """`StableDiffusion3Pipeline` (see `sipo.backbones.family.Adapter`). Latents: (B, C, h, w)."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]
        self.stride, self.patch = kl_stride(configs), self.transformer["patch_size"]

    @property
    def sizes(self) -> Sizes:
        side = self.transformer["sample_size"] * self.stride
        return Sizes(Size(side, side), self.patch * self.stride, self.patch * self.stride)

    @property
    def tokens(self) -> dict[str, int]:
        clip = {part: self.configs[part]["max_position_embeddings"] for part in ("text_encoder", "text_encoder_2")}
        return {**clip, "text_encoder_3": MAX_TOKENS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.transformer["in_channels"], size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        length = self.tokens["text_encoder"] + MAX_TOKENS
        return {
            "encoder_hidden_states": meta(batch, length, self.transformer["joint_attention_dim"], dtype=dtype),
            "pooled_projections": meta(batch, self.transformer["pooled_projection_dim"], dtype=dtype),
        }

    def schedule(self, size: Size) -> FlowSchedule:
        """The checkpoint's own shift: 3, at every size."""
        tokens = (size.height // (self.patch * self.stride)) * (size.width // (self.patch * self.stride))
        return flow_schedule(self.configs["scheduler"], tokens)

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w)."""
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(
            hidden_states=xt.to(hidden.dtype), timestep=t, encoder_hidden_states=hidden,
            pooled_projections=conditioning["pooled_projections"],
        ).sample  # fmt: skip

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 77 + 256, D), those of both CLIPs side by side, padded with zeros to T5's width, before
        T5's; `pooled_projections` (B, D) of both CLIPs."""
        hidden, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, device=pipeline.transformer.device, do_classifier_free_guidance=False,
            max_sequence_length=MAX_TOKENS,
        )  # fmt: skip
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
    ) -> Sequence[Media]:
        return pipeline(
            prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance,
            height=size.height, width=size.width, max_sequence_length=MAX_TOKENS,
        ).images  # fmt: skip


STABLE_DIFFUSION_3 = Family(
    pipeline=StableDiffusion3Pipeline,
    denoisers={"transformer": SD3Transformer2DModel},
    vae=AutoencoderKL,
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    # The joint attention of both streams, as diffusers' DreamBooth script adapts it.
    lora_targets=(
        "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj",
        "attn.to_add_out",
    ),
    adapter=StableDiffusion3,
    dtype=torch.bfloat16,
)  # fmt: skip
"""Stable Diffusion 3 and 3.5: a flow-matching transformer, two CLIPs and T5."""
