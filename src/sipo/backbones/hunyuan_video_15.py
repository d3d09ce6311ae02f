"""HunyuanVideo-1.5, text to video: a flow transformer over video latents, with Qwen2.5-VL for prompts and ByT5 for what they quote."""

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLHunyuanVideo15, HunyuanVideo15Transformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor
from torch import Tensor, nn

from sipo.backbones.family import (
    Conditioning,
    Configs,
    Family,
    Media,
    Sizes,
    draw,
    meta,
    scaled,
    unscaled,
    vae_moments,
)
from sipo.backbones.hunyuan_video_15_forward import arranged, prepare
from sipo.backbones.prompts import padded
from sipo.backbones.shifts import flow_schedule
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS, MAX_GLYPHS = 1000, 256  # what the pipeline keeps of a prompt, and of the texts in quotation marks in it
ASPECT = 9, 16  # height : width, the pipeline's default
READ = {  # of the conditioning, by the names of `arranged`
    "text": "encoder_hidden_states", "lengths": "lengths", "glyphs": "encoder_hidden_states_2", "lengths_2": "lengths_2",
}  # fmt: skip
FRAMES, RATE = 121, 24.0  # the pipeline's default, and the rate of the model's card


class HunyuanVideo15Pipeline(diffusers.HunyuanVideo15Pipeline):  # pyright: ignore[reportPrivateImportUsage]
    """diffusers' own, which is also built where the VAE stays on disk: its constructor reads the VAE's config unless there is none."""

    def __init__(
        self, text_encoder: Any, tokenizer: Any, transformer: Any, vae: Any, scheduler: Any, text_encoder_2: Any,
        tokenizer_2: Any, guider: Any,
    ) -> None:  # fmt: skip
        super().__init__(text_encoder, tokenizer, transformer, vae, scheduler, text_encoder_2, tokenizer_2, guider)
        self.vae = vae

    def register_modules(self, **parts: Any) -> None:
        super().register_modules(**{name: part for name, part in parts.items() if name != "vae" or part is not None})


class HunyuanVideo15:
    """`HunyuanVideo15Pipeline` (see `sipo.backbones.family.Adapter`). Latents: (B, C, f, h, w)."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]
        channels, own = self.transformer["in_channels"], self.vae["latent_channels"]
        task = self.transformer.get("task_type", "t2v")
        if task != "t2v":
            raise UserError(f"its transformer was trained for {task}; text to video (t2v) is supported")
        if self.transformer.get("use_meanflow"):
            raise UserError("its transformer predicts mean flows (super-resolution, few steps), which is not supported")
        if channels != 2 * own + 1:
            raise UserError(
                f"its transformer reads {channels} channels; expected {2 * own + 1}: twice the VAE's {own}, and a mask"
            )
        self.stride, self.frame_stride = self.vae["spatial_compression_ratio"], self.vae["temporal_compression_ratio"]

    @property
    def sizes(self) -> Sizes:
        """Native: the pipeline's own choice for 16 : 9, of as many pixels as a square of side `target_size`."""
        processor = HunyuanVideo15ImageProcessor(vae_scale_factor=self.stride)
        sides = processor.calculate_default_height_width(*ASPECT, self.transformer["target_size"])
        multiple = self.stride * self.transformer["patch_size"]
        frames = self.frame_stride * self.transformer["patch_size_t"]
        return Sizes(Size(*sides, FRAMES, fps=RATE), multiple, multiple, frames)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": MAX_TOKENS, "text_encoder_2": MAX_GLYPHS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        frames = (size.num_frames - 1) // self.frame_stride + 1
        return self.vae["latent_channels"], frames, size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {
            "encoder_hidden_states": meta(batch, MAX_TOKENS, self.transformer["text_embed_dim"], dtype=dtype),
            "lengths": meta(batch, dtype=torch.int64),
            "encoder_hidden_states_2": meta(batch, MAX_GLYPHS, self.transformer["text_embed_2_dim"], dtype=dtype),
            "lengths_2": meta(batch, dtype=torch.int64),
        }

    def schedule(self, size: Size) -> FlowSchedule:
        """The checkpoint's own static shift: 5 (480p) or 9 (720p)."""
        return flow_schedule(self.configs["scheduler"], tokens=0)

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = scale (mean + std noise), (B, C, f, h, w)."""
        return scaled(draw(moments, noise), self.vae)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, f, h, w). Texts are as long as the longest of the batch."""
        texts = arranged(**{name: conditioning[key] for name, key in READ.items()})
        # The network embeds timesteps in their own dtype: that of its weights, unless autocast sees to it, and then t is not rounded.
        autocast = not t.is_meta and torch.is_autocast_enabled(t.device.type)
        dtype = texts["text"].dtype
        return denoiser(xt.to(dtype), t if autocast else t.to(dtype), **texts)

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """Of Qwen2.5-VL's last layer but two, after the template's opening: `encoder_hidden_states` (B, 1000, D), `lengths` (B,);
        of ByT5, for texts in quotation marks: `encoder_hidden_states_2` (B, 256, D'), `lengths_2` (B,). Zeros after the end."""
        text, mask, glyphs, of_glyphs = pipeline.encode_prompt(
            list(prompts), device=pipeline.transformer.device, batch_size=len(prompts)
        )
        first, second = (
            padded([each[kept] for each, kept in zip(hidden, kept.bool(), strict=True)], length)
            for hidden, kept, length in ((text, mask, MAX_TOKENS), (glyphs, of_glyphs, MAX_GLYPHS))
        )
        return first | {f"{name}_2": value for name, value in second.items()}

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, C, f, h, w)."""
        return vae_moments(vae, pixels.transpose(1, 2))

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        frames = pipeline.vae.decode(unscaled(x0, self.vae).to(pipeline.vae.dtype)).sample
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
        """`guidance` is the scale of the checkpoint's own guider for this call; an empty prompt is the negative one."""
        own = pipeline.guider
        pipeline.guider = own.new(guidance_scale=guidance)
        try:
            return pipeline(
                list(prompts), generator=generators, num_inference_steps=steps, height=size.height, width=size.width,
                num_frames=size.num_frames, output_type="pil",
            ).frames  # fmt: skip
        finally:
            pipeline.guider = own


HUNYUAN_VIDEO_15 = Family(
    pipeline=HunyuanVideo15Pipeline,
    denoisers={"transformer": HunyuanVideo15Transformer3DModel},
    vae=AutoencoderKLHunyuanVideo15,
    text_encoders=("text_encoder", "text_encoder_2"),
    lora_targets=("to_k", "to_q", "to_v", "to_out.0"),  # of the video's stream, and of the text's refiner
    adapter=HunyuanVideo15,
    dtype=torch.bfloat16,
    tiled_vae=True,
    template=5,  # <|im_end|> \n <|im_start|> assistant \n
    idle_weights=True,  # the text's stream ends in the last block, and no image is read
    encoder_layers=3,  # the last that is read, and the two after it
    excerpts=("text_encoder_2",),
    prepare=prepare,
)
"""HunyuanVideo-1.5, text to video: a flow-matching transformer, Qwen2.5-VL and ByT5."""
