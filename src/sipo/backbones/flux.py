"""FLUX.1-dev: a guidance-distilled flow transformer over latents packed 2 x 2, with CLIP and T5 text encoders."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel  # pyright: ignore[reportPrivateImportUsage]
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

MAX_TOKENS = 512  # of T5, the pipeline's default; encoders with learned positions take as many as they have


class Flux(PictureVae):
    """`FluxPipeline` (see `sipo.backbones.family.Adapter`). Latents stay (B, C, h, w) outside `predict`."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]
        self.stride = kl_stride(configs)
        self.max_tokens = configs["text_encoder_2"].get("max_position_embeddings", MAX_TOKENS)

    @property
    def sizes(self) -> Sizes:
        """Native: what the VAE was made for, FLUX.1's 1024. The pipeline packs latents 2 x 2."""
        side = self.vae["sample_size"]
        return Sizes(Size(side, side), 2 * self.stride, 2 * self.stride)

    @property
    def tokens(self) -> dict[str, int]:
        clip = self.configs["text_encoder"].get("max_position_embeddings", 77)
        return {"text_encoder": clip, "text_encoder_2": self.max_tokens}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.transformer["in_channels"] // 4, size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {
            "encoder_hidden_states": meta(batch, self.max_tokens, self.transformer["joint_attention_dim"], dtype=dtype),
            "pooled_projections": meta(batch, self.transformer["pooled_projection_dim"], dtype=dtype),
        }

    def schedule(self, size: Size) -> FlowSchedule:
        """The checkpoint's own shift; FLUX.1-dev's grows with the number of image tokens."""
        tokens = (size.height // (2 * self.stride)) * (size.width // (2 * self.stride))
        return flow_schedule(self.configs["scheduler"], tokens)

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w)."""
        height, width = xt.shape[2:]
        packed = self.run(denoiser, pack(xt), image_ids(height // 2, width // 2, xt.device), t, conditioning, guidance)
        return unpack(packed, height, width)

    def run(
        self, denoiser: nn.Module, packed: Tensor, ids: Tensor, t: Tensor, conditioning: Conditioning, guidance: float
    ) -> Tensor:
        """The network on tokens (B, L, 4 C) at positions (L, 3). It takes t / 1000, and a guidance if it is distilled."""
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(
            hidden_states=packed.to(hidden.dtype),
            timestep=t / 1000,
            guidance=torch.full((len(t),), guidance, device=t.device) if self.transformer["guidance_embeds"] else None,
            pooled_projections=conditioning["pooled_projections"],
            encoder_hidden_states=hidden,
            txt_ids=torch.zeros(hidden.shape[1], 3, device=t.device),
            img_ids=ids,
        ).sample

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, L, D) of T5, `pooled_projections` (B, D) of CLIP."""
        hidden, pooled, _ = pipeline.encode_prompt(
            prompts, device=pipeline.transformer.device, max_sequence_length=self.max_tokens
        )
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}

    def guidance_keys(self, batch: int, guidance: float) -> dict[str, Any]:
        """What the pipeline is told: a guidance-distilled network's `guidance_scale`; of another the `true_cfg_scale`."""
        is_guided = guidance > 1 and not self.transformer["guidance_embeds"]
        return {
            "guidance_scale": guidance,
            "true_cfg_scale": guidance if is_guided else 1.0,
            "negative_prompt": [""] * batch if is_guided else None,
        }

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
            prompts, **self.guidance_keys(len(prompts), guidance), generator=generators, num_inference_steps=steps,
            height=size.height, width=size.width, max_sequence_length=self.max_tokens,
        ).images  # fmt: skip


def image_ids(height: int, width: int, device: torch.device) -> Tensor:
    """(height width, 3): 0, row and column of each 2 x 2 pack, as the pipeline's, built on the device."""
    rows, columns = (torch.arange(length, device=device, dtype=torch.float32) for length in (height, width))
    return torch.cartesian_prod(torch.zeros(1, device=device), rows, columns)


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h/2 w/2, 4 C), as the pipeline packs."""
    return FluxPipeline._pack_latents(latents, *latents.shape)


def unpack(packed: Tensor, height: int, width: int) -> Tensor:
    """(B, h/2 w/2, 4 C) -> (B, C, h, w): the inverse of the pipeline's packing."""
    batch, _, channels = packed.shape
    blocks = packed.reshape(batch, height // 2, width // 2, channels // 4, 2, 2)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


FLUX = Family(
    pipeline=FluxPipeline,
    denoisers={"transformer": FluxTransformer2DModel},
    vae=AutoencoderKL,
    text_encoders=("text_encoder", "text_encoder_2"),
    # The attention projections of both streams, as diffusers' DreamBooth script adapts them.
    lora_targets=("to_k", "to_q", "to_v", "to_out.0", "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out"),
    adapter=Flux,
    dtype=torch.bfloat16,
)
"""FLUX.1-dev: a flow-matching transformer, CLIP and T5, distilled guidance."""
