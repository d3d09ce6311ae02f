"""CogVideoX-2B and 5B: v-prediction with zero terminal SNR over video latents, frames first, with a T5 text encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Configs, Family, Media, Sizes, draw, kl_stride, meta, vae_moments
from sipo.errors import UserError
from sipo.schedule import VPSchedule
from sipo.size import Size


class CogVideoX:
    """`CogVideoXPipeline` (see `sipo.backbones.family.Adapter`). Latents are (B, f, C, h, w)."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.transformer, self.vae, self.scheduler = configs["transformer"], configs["vae"], configs["scheduler"]
        if self.transformer.get("patch_size_t"):
            raise UserError("it is a CogVideoX 1.5, which is not supported; 1.0 is")
        self.stride, self.patch = kl_stride(configs), self.transformer["patch_size"]
        self.frame_stride = int(self.vae.get("temporal_compression_ratio", 4))
        self.max_tokens = self.transformer.get("max_text_seq_length", 226)

    @property
    def sizes(self) -> Sizes:
        height, width = (self.transformer[key] * self.stride for key in ("sample_height", "sample_width"))
        native = Size(height, width, self.transformer["sample_frames"], fps=8.0)
        multiple, learned = self.stride * self.patch, self.transformer.get("use_learned_positional_embeddings", False)
        return Sizes(native, multiple, multiple, self.frame_stride, only_native=learned)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": self.max_tokens}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        frames = (size.num_frames - 1) // self.frame_stride + 1
        return frames, self.transformer["in_channels"], size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {"encoder_hidden_states": meta(batch, self.max_tokens, self.transformer["text_embed_dim"], dtype=dtype)}

    def schedule(self, size: Size) -> VPSchedule:
        """The table with its SNR shift and zero terminal SNR, as the family's DDIM scheduler computes it."""
        scheduler: Any = CogVideoXDDIMScheduler.from_config(self.scheduler)
        return VPSchedule(scheduler.alphas_cumprod, scheduler.config["prediction_type"])

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = scale (mean + std noise), (B, f, C, h, w)."""
        return draw(moments, noise) * self.vae["scaling_factor"]

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """v, (B, f, C, h, w)."""
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(
            hidden_states=xt.to(hidden.dtype), timestep=t, encoder_hidden_states=hidden,
            image_rotary_emb=self._rotary(xt),
        ).sample  # fmt: skip

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 226, D) of T5."""
        hidden, _ = pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens,
            device=pipeline.transformer.device,
        )  # fmt: skip
        return {"encoder_hidden_states": hidden}

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, f, C, h, w)."""
        return vae_moments(vae, pixels.transpose(1, 2)).transpose(2, 3)

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        frames = pipeline.decode_latents(x0.to(pipeline.vae.dtype))
        return pipeline.video_processor.postprocess_video(frames, output_type="pil")

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
            prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance, height=size.height,
            width=size.width, num_frames=size.num_frames, max_sequence_length=self.max_tokens,
        ).frames  # fmt: skip

    def _rotary(self, xt: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of the positions (tokens, head dim); None for 2B, whose positions are fixed sines."""
        if not self.transformer["use_rotary_positional_embeddings"]:
            return None
        grid = xt.shape[3] // self.patch, xt.shape[4] // self.patch
        base = self.transformer["sample_width"] // self.patch, self.transformer["sample_height"] // self.patch
        return get_3d_rotary_pos_embed(  # pyright: ignore[reportReturnType]: one tensor only with use_real=False
            embed_dim=self.transformer["attention_head_dim"], grid_size=grid, temporal_size=xt.shape[1],
            crops_coords=get_resize_crop_region_for_grid(grid, *base), device=xt.device,
        )  # fmt: skip


COGVIDEOX = Family(
    pipeline=CogVideoXPipeline,
    denoisers={"transformer": CogVideoXTransformer3DModel},
    vae=AutoencoderKLCogVideoX,
    text_encoders=("text_encoder",),
    lora_targets=("to_k", "to_q", "to_v", "to_out.0"),
    adapter=CogVideoX,
    dtype=torch.bfloat16,  # of 5B, which overflows float16; 2B takes both
    tiled_vae=True,
)
"""CogVideoX 2B and 5B: videos, a transformer with v-prediction, T5."""
