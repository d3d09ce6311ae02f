"""Qwen-Image: a flow transformer over latents packed 2 x 2 of a video VAE, with Qwen2.5-VL for prompts of any length."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from sipo.backbones.family import (
    Conditioning,
    Configs,
    Family,
    Media,
    Sizes,
    draw,
    meta,
    standardized,
    unstandardized,
    vae_moments,
)
from sipo.backbones.flux import pack, unpack
from sipo.backbones.prompts import padded, unpadded
from sipo.backbones.shifts import flow_schedule
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 512  # the pipeline's default
SIDE = 1024  # the pipeline's default
NEGATIVE = " "  # what the model's card passes as the negative prompt; without one the pipeline leaves guidance out


class QwenImage:
    """`QwenImagePipeline` (see `sipo.backbones.family.Adapter`). Latents stay (B, C, h, w) outside `predict`."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]
        if self.transformer.get("use_layer3d_rope") or self.transformer.get("use_additional_t_cond"):
            raise UserError("it is a Qwen-Image-Layered, which is not supported; Qwen-Image is")
        self.stride = 2 ** len(self.vae["temperal_downsample"])

    @property
    def sizes(self) -> Sizes:
        return Sizes(Size(SIDE, SIDE), 2 * self.stride, 2 * self.stride)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": MAX_TOKENS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.transformer["in_channels"] // 4, size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        hidden = meta(batch, MAX_TOKENS, self.transformer["joint_attention_dim"], dtype=dtype)
        return {"encoder_hidden_states": hidden, "lengths": meta(batch, dtype=torch.int64)}

    def schedule(self, size: Size) -> FlowSchedule:
        """The checkpoint's own shift, which grows with the number of image tokens."""
        tokens = (size.height // (2 * self.stride)) * (size.width // (2 * self.stride))
        return flow_schedule(self.configs["scheduler"], tokens)

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = (mean + std noise - latents_mean) / latents_std, channel by channel, (B, C, h, w)."""
        return standardized(draw(moments, noise), self.vae)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w)."""
        height, width = xt.shape[2:]
        return unpack(self.run(denoiser, pack(xt), [(1, height // 2, width // 2)], t, conditioning), height, width)

    def run(
        self,
        denoiser: nn.Module,
        packed: Tensor,
        shapes: list[tuple[int, int, int]],
        t: Tensor,
        conditioning: Conditioning,
    ) -> Tensor:
        """The network on tokens (B, L, 4 C) of pictures of these frames, rows and columns. Prompts are as long as the longest,
        and masked where they are shorter."""
        hidden, mask = unpadded(conditioning)
        return denoiser(
            hidden_states=packed.to(hidden.dtype),
            timestep=t / 1000,
            encoder_hidden_states=hidden,
            encoder_hidden_states_mask=mask,
            img_shapes=[shapes] * len(packed),
        ).sample

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 512, D) of Qwen2.5-VL after the template's opening, zeros after the end; `lengths` (B,)."""
        hidden, mask = pipeline.encode_prompt(
            prompts, device=pipeline.transformer.device, max_sequence_length=MAX_TOKENS
        )
        lengths = [hidden.shape[1]] * len(prompts) if mask is None else mask.sum(1).tolist()
        return padded([each[:length] for each, length in zip(hidden, lengths, strict=True)], MAX_TOKENS)

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, C, h, w)."""
        return vae_moments(vae, pixels.unsqueeze(2)).squeeze(3)  # a video of one frame

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        latents = unstandardized(x0, self.vae).to(pipeline.vae.dtype)
        return pipeline.image_processor.postprocess(pipeline.vae.decode(latents.unsqueeze(2)).sample[:, :, 0])

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
    ) -> Sequence[Media]:
        """`guidance` is the pipeline's `true_cfg_scale`."""
        return pipeline(
            prompts, negative_prompt=[NEGATIVE] * len(prompts) if guidance > 1 else None, generator=generators,
            num_inference_steps=steps, true_cfg_scale=guidance, height=size.height, width=size.width,
            max_sequence_length=MAX_TOKENS,
        ).images  # fmt: skip


QWEN_IMAGE = Family(
    pipeline=QwenImagePipeline,
    denoisers={"transformer": QwenImageTransformer2DModel},
    vae=AutoencoderKLQwenImage,
    text_encoders=("text_encoder",),
    lora_targets=("to_k", "to_q", "to_v", "to_out.0"),  # of the image's stream, as diffusers' DreamBooth script
    adapter=QwenImage,
    dtype=torch.bfloat16,
    template=5,  # <|im_end|> \n <|im_start|> assistant \n
    idle_weights=True,  # the text's stream ends in the last block
)
"""Qwen-Image: a flow-matching transformer, Qwen2.5-VL."""
