"""Wan 2.1 and 2.2, text to video: flow transformers over video latents, channels first, with a UMT5 text encoder.

2.2 T2V-A14B has two transformers, which take over from each other at `boundary_ratio`; 2.2 TI2V-5B has one, over the latents
of a VAE that compresses 4 x 16 x 16 (`expand_timesteps` in its model_index.json).
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
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
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 512  # the pipeline's default


class Wan:
    """`WanPipeline` (see `sipo.backbones.family.Adapter`). Latents: (B, C, f, h, w)."""

    def __init__(self, configs: Configs) -> None:
        self.transformer, self.vae, self.scheduler = configs["transformer"], configs["vae"], configs["scheduler"]
        index = configs["model_index"]
        # A timestep for each token, 0 for those of a given first frame. Of text to video all are equal, and one for each sample
        # gives the same without 1 GB of modulations (27,280 tokens x 6 x 3,072 in bfloat16).
        self.per_token = bool(index.get("expand_timesteps"))
        self.boundaries = _boundaries(index.get("boundary_ratio"), "transformer_2" in configs, self.scheduler)
        self.channels = self.vae.get("z_dim", 16)
        # The pipeline's own rule; older configs lack the keys.
        self.stride = int(self.vae.get("scale_factor_spatial") or 8)
        self.frame_stride = int(self.vae.get("scale_factor_temporal") or 4)
        self.require_channels()

    def require_channels(self) -> None:
        """Raises UserError for a transformer that reads more than the noisy latents."""
        found = self.transformer["in_channels"]
        if found != self.channels:
            raise UserError(
                f"its transformer reads {found} channels and its VAE has {self.channels}: an image-to-video model, whose "
                "model_index.json should name a WanImageToVideoPipeline"
            )

    @property
    def sizes(self) -> Sizes:
        """Native: the pipeline's defaults, at the 16 frames a second of the training data; of TI2V-5B its card's."""
        _, height, width = self.transformer["patch_size"]
        native = Size(704, 1280, 121, fps=24.0) if self.per_token else Size(480, 832, 81, fps=16.0)
        return Sizes(native, self.stride * height, self.stride * width, self.frame_stride)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": MAX_TOKENS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        frames = (size.num_frames - 1) // self.frame_stride + 1
        return self.channels, frames, size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {"encoder_hidden_states": meta(batch, MAX_TOKENS, self.transformer["text_dim"], dtype=dtype)}

    def schedule(self, size: Size) -> FlowSchedule:
        """The static shift of the checkpoint's scheduler: `flow_shift` of UniPC, `shift` of the Euler scheduler."""
        config = self.scheduler
        return FlowSchedule(config["num_train_timesteps"], config.get("flow_shift") or config.get("shift") or 1.0)

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = (mean + std noise - latents_mean) / latents_std, channel by channel, (B, C, f, h, w)."""
        return standardized(draw(moments, noise), self.vae)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, f, h, w)."""
        hidden = conditioning["encoder_hidden_states"]
        return denoiser(hidden_states=xt.to(hidden.dtype), timestep=t, encoder_hidden_states=hidden).sample

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 512, D) of UMT5, zeros after the end of the text."""
        hidden, _ = pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS,
            device=pipeline.transformer.device,
        )  # fmt: skip
        return {"encoder_hidden_states": hidden}

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, C, f, h, w)."""
        return vae_moments(vae, pixels.transpose(1, 2))

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        frames = pipeline.vae.decode(unstandardized(x0, self.vae).to(pipeline.vae.dtype)).sample
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
            width=size.width, num_frames=size.num_frames, max_sequence_length=MAX_TOKENS, output_type="pil",
        ).frames  # fmt: skip


def _boundaries(ratio: float | None, has_second: bool, scheduler: dict[str, Any]) -> tuple[float, ...]:
    """The timestep below which the second transformer takes over. Raises UserError where one of the two is missing."""
    if ratio is None and not has_second:
        return ()
    if ratio is None or not has_second:
        found = "a transformer_2 and no boundary_ratio" if has_second else "a boundary_ratio and no transformer_2"
        raise UserError(f"its model_index.json names {found}; a model with two transformers has both")
    return (ratio * scheduler["num_train_timesteps"],)


WAN = Family(
    pipeline=WanPipeline,
    denoisers={"transformer": WanTransformer3DModel, "transformer_2": WanTransformer3DModel},
    optional=("transformer_2",),
    vae=AutoencoderKLWan,
    text_encoders=("text_encoder",),
    lora_targets=("to_k", "to_q", "to_v", "to_out.0"),
    adapter=Wan,
    dtype=torch.bfloat16,
    noise_dtype=torch.float32,
    vae_dtype=torch.float32,
    tiled_vae=True,
)
"""Wan 2.1 and 2.2, text to video: a flow-matching transformer, or two by timestep; UMT5."""
