"""Stable Diffusion 1.x, 2.x and XL: UNet, VAE with a scale, one or two CLIP text encoders."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,  # pyright: ignore[reportPrivateImportUsage]
    DDPMScheduler,  # pyright: ignore[reportPrivateImportUsage]
    StableDiffusionPipeline,  # pyright: ignore[reportPrivateImportUsage]
    StableDiffusionXLPipeline,  # pyright: ignore[reportPrivateImportUsage]
    UNet2DConditionModel,  # pyright: ignore[reportPrivateImportUsage]
)
from torch import Tensor, nn

from sipo.backbones.family import (
    Conditioning,
    Configs,
    Family,
    Media,
    Sizes,
    constant,
    kl_stride,
    meta,
)
from sipo.backbones.picture_vae import PictureVae
from sipo.backbones.windows import encode_windows, window_ids
from sipo.schedule import VPSchedule
from sipo.size import Size


class StableDiffusion(PictureVae):
    """`StableDiffusionPipeline` and `StableDiffusionXLPipeline` (see `sipo.backbones.family.Adapter`)."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.unet, self.vae = configs, configs["unet"], configs["vae"]
        self.is_xl = "text_encoder_2" in configs
        self.stride = kl_stride(configs)
        self.windows = 1

    def in_windows(self, windows: int) -> "StableDiffusion":
        adapter = StableDiffusion(self.configs)
        adapter.windows = windows
        return adapter

    @property
    def sizes(self) -> Sizes:
        """Every level of the UNet must halve the latents exactly."""
        side = self.unet["sample_size"] * self.stride
        multiple = self.stride * 2 ** (len(self.unet["block_out_channels"]) - 1)
        return Sizes(Size(side, side), multiple, multiple)

    @property
    def tokens(self) -> dict[str, int]:
        parts = (part for part in ("text_encoder", "text_encoder_2") if part in self.configs)
        return {part: self.windows * self._length(part) for part in parts}

    def _length(self, part: str) -> int:
        return self.configs[part].get("max_position_embeddings", 77)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.unet["in_channels"], size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        text = {
            "encoder_hidden_states": meta(
                batch, self.tokens["text_encoder"], self.unet["cross_attention_dim"], dtype=dtype
            )
        }
        if self.is_xl:
            pooled = self.unet["projection_class_embeddings_input_dim"] - 6 * self.unet["addition_time_embed_dim"]
            text["text_embeds"] = meta(batch, pooled, dtype=dtype)
        return text

    def schedule(self, size: Size) -> VPSchedule:
        """DDPMScheduler computes alphas_cumprod from any SD scheduler's config, zero terminal SNR included."""
        scheduler: Any = DDPMScheduler.from_config(self.configs["scheduler"])
        return VPSchedule(scheduler.alphas_cumprod, scheduler.config["prediction_type"])

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        """XL's `time_ids` (B, 6): original size, crop corner, target size (Podell et al. 2023, section 2.2)."""
        if not self.is_xl:
            return {}
        target = constant([size.height, size.width], micro_conditioning).expand(len(micro_conditioning), 2)
        return {"time_ids": torch.cat([micro_conditioning, target], dim=1)}

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The UNet's raw prediction, (B, C, h, w). Without `time_ids`, XL takes the picture as uncropped."""
        hidden = conditioning["encoder_hidden_states"]
        if not self.is_xl:
            return denoiser(xt, t, encoder_hidden_states=hidden).sample
        time_ids = conditioning.get("time_ids")
        if time_ids is None:
            whole = torch.tensor([[size.height, size.width, 0, 0]], dtype=torch.float32)
            uncropped = whole.to(xt.device, non_blocking=True).expand(len(xt), 4)
            time_ids = self.conditioning_of(uncropped, size)["time_ids"]
        added = {"text_embeds": conditioning["text_embeds"], "time_ids": time_ids.to(hidden.dtype)}
        return denoiser(xt, t, encoder_hidden_states=hidden, added_cond_kwargs=added).sample

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, L, D); for XL those of both encoders, and `text_embeds` (B, D) of the second.

        As the pipeline encodes them, which tokenizes twice, to warn of long captions in every step.
        """
        states, pooled = [], torch.empty(0)
        for part in self.tokens:
            tokenizer, encoder = getattr(pipeline, part.replace("text_encoder", "tokenizer")), getattr(pipeline, part)
            ids, mask = window_ids(tokenizer, prompts, self.windows, self._length(part))
            masked = not self.is_xl and getattr(encoder.config, "use_attention_mask", False)
            found, pooled = encode_windows(encoder, ids, mask if masked else None, penultimate=self.is_xl)
            states.append(found)
        return {"encoder_hidden_states": torch.cat(states, dim=-1), **({"text_embeds": pooled} if self.is_xl else {})}

    def _embeddings(self, pipeline: Any, prompts: list[str]) -> dict[str, Any]:
        """What the pipeline takes in the place of prompts that it would cut."""
        given, empty = (self.encode_prompts(pipeline, texts) for texts in (prompts, [""] * len(prompts)))
        if self.is_xl and pipeline.config.force_zeros_for_empty_prompt:
            empty = {name: torch.zeros_like(value) for name, value in given.items()}
        names = {"encoder_hidden_states": "prompt_embeds", "text_embeds": "pooled_prompt_embeds"}
        return {names[name]: value for name, value in given.items()} | {
            f"negative_{names[name]}": value for name, value in empty.items()
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
        text = {"prompt": prompts} if self.windows == 1 else self._embeddings(pipeline, prompts)
        return pipeline(
            **text, generator=generators, num_inference_steps=steps, guidance_scale=guidance,
            height=size.height, width=size.width,
        ).images  # fmt: skip


# The targets of diffusers' examples/research_projects/diffusion_dpo: the UNet's attention projections.
ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
UNET = {"unet": UNet2DConditionModel}

STABLE_DIFFUSION = Family(StableDiffusionPipeline, UNET, AutoencoderKL, ("text_encoder",), ATTENTION, StableDiffusion)
"""Stable Diffusion 1.x and 2.x: a UNet, one CLIP text encoder."""
STABLE_DIFFUSION_XL = Family(
    StableDiffusionXLPipeline, UNET, AutoencoderKL, ("text_encoder", "text_encoder_2"), ATTENTION, StableDiffusion
)
"""Stable Diffusion XL: a UNet, two CLIP text encoders, micro-conditioning."""
