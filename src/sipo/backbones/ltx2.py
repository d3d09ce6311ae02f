"""LTX-2 and LTX-2.3, text to video without sound: a flow transformer over video and audio of which the video's stream runs alone.

Both streams lie in one network and attend to each other in every block. Pairs have no sound, so nothing is known of the audio that
a noisy video goes with. Here the two are isolated (`isolate_modalities`), as their authors' trainer does with videos alone
(Lightricks/LTX-2: ltx-trainer) and the pipeline itself for its guidance by modality: the prediction depends on no audio.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2Pipeline, LTX2VideoTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Configs, Family, Media, Sizes, draw, meta, vae_moments
from sipo.backbones.shifts import flow_schedule
from sipo.errors import UserError
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 1024  # the pipeline's default
RATE = 24.0
NATIVE = Size(512, 768, 121, fps=RATE)  # the pipeline's defaults
MULTIPLE = 32  # of the sides, which the pipeline requires
POINT = -60.0  # log-variance of latents that are their mean: a deviation of 1e-13
AUDIO = ("audio", "av_cross_attn", "a2v_cross_attn")  # in the names of weights that the video by itself does not read


class LTX2:
    """`LTX2Pipeline` (see `sipo.backbones.family.Adapter`). Latents: (B, C, f, h, w)."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.transformer, self.vae, self.scheduler = configs["transformer"], configs["vae"], configs["scheduler"]
        encoder, connectors = configs["text_encoder"]["_class_name"], configs["connectors"]
        if not encoder.startswith("Gemma3"):
            raise UserError(
                f"its text encoder is a {encoder}; LTX-2 and LTX-2.3, of Gemma 3, are supported, LTX-2.5 is not"
            )
        if connectors.get("video_connector_num_learnable_registers", 128) is None:
            raise UserError(
                "its connectors have no registers in the place of padding, which would have to be masked; this is not supported"
            )
        sides = self.transformer.get("patch_size", 1), self.transformer.get("patch_size_t", 1)
        if sides != (1, 1):
            raise UserError(
                f"its transformer takes patches of {sides[1]} x {sides[0]} x {sides[0]} latents; 1 x 1 x 1 is supported"
            )
        self.stride, self.frame_stride = self.vae["spatial_compression_ratio"], self.vae["temporal_compression_ratio"]

    @property
    def sizes(self) -> Sizes:
        multiple = math.lcm(self.stride, MULTIPLE)
        return Sizes(NATIVE, multiple, multiple, self.frame_stride)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": MAX_TOKENS, "connectors": MAX_TOKENS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        frames = (size.num_frames - 1) // self.frame_stride + 1
        return self.vae["latent_channels"], frames, size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {"encoder_hidden_states": meta(batch, MAX_TOKENS, self._text_width("cross_attention_dim"), dtype=dtype)}

    def _text_width(self, own: str) -> int:
        """Of LTX-2's prompts, which each stream projects; of LTX-2.3's, which the connectors bring to the stream's `own` width."""
        return self.transformer["caption_channels" if self.transformer.get("use_prompt_embeddings", True) else own]

    def schedule(self, size: Size) -> FlowSchedule:
        """The checkpoint's own shift, which grows with the number of latents' tokens, here beyond `max_image_seq_len` too."""
        return flow_schedule(self.scheduler, math.prod(self.latent_shape(size)[1:]))

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = mean, (B, C, f, h, w); `encode_media` has standardized it, and its variance is none."""
        return draw(moments, noise)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, f, h, w), at the rate of `size`. The audio is one token of zeros, which the video does not see."""
        hidden, (frames, height, width) = conditioning["encoder_hidden_states"], xt.shape[2:]
        audio, text = self.transformer["audio_in_channels"], self._text_width("audio_cross_attention_dim")
        coords = positions(self.transformer, frames, height, width, size.fps or RATE, xt.device)
        tokens = denoiser(
            hidden_states=xt.to(hidden.dtype).flatten(2).transpose(1, 2), audio_hidden_states=hidden.new_zeros(len(xt), 1, audio),
            encoder_hidden_states=hidden, audio_encoder_hidden_states=hidden.new_zeros(len(xt), 1, text), timestep=t, sigma=t,
            video_coords=coords.expand(len(xt), -1, -1, -1), audio_num_frames=1, isolate_modalities=True,
        ).sample  # fmt: skip
        return tokens.transpose(1, 2).unflatten(2, (frames, height, width))

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 1024, D) of all of Gemma's layers through the video's connector; registers after the text."""
        hidden, mask, _, _ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS,
            device=pipeline.transformer.device,
        )  # fmt: skip
        video, _, _ = pipeline.connectors(hidden, mask, padding_side=pipeline.tokenizer.padding_side)
        return {"encoder_hidden_states": video}

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, F, 3, H, W) -> (B, 2, C, f, h, w), the mean standardized by the statistics that the VAE holds.

        Without the variance, which the authors' encoder drops (Lightricks/LTX-2: ltx-core, VideoEncoder).
        """
        center, deviation = statistics(vae)
        mean = (vae_moments(vae, pixels.transpose(1, 2))[:, 0] - center) / deviation
        return torch.stack([mean, torch.full_like(mean, POINT)], dim=1)

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        center, deviation = statistics(pipeline.vae)
        latents = (x0 * deviation + center).to(pipeline.vae.dtype)
        # A decoder that reads a timestep gets that of clean latents, the pipeline's default.
        timestep = latents.new_zeros(len(latents)) if pipeline.vae.config.timestep_conditioning else None
        return pipeline.video_processor.postprocess_video(
            pipeline.vae.decode(latents, timestep).sample, output_type="pil"
        )

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
    ) -> Sequence[Media]:
        """Isolated too; guided by an empty prompt alone. The pipeline makes a sound as well, which is left."""
        with isolated(pipeline.transformer):
            return pipeline(
                list(prompts), generator=generators, num_inference_steps=steps, guidance_scale=guidance, stg_scale=0.0,
                modality_scale=1.0, guidance_rescale=0.0, audio_guidance_scale=None, audio_stg_scale=None,
                audio_modality_scale=None, audio_guidance_rescale=None, height=size.height, width=size.width,
                num_frames=size.num_frames, frame_rate=size.fps, max_sequence_length=MAX_TOKENS, output_type="pil",
            ).frames  # fmt: skip


def positions(
    transformer: dict[str, Any], frames: int, height: int, width: int, fps: float, device: torch.device
) -> Tensor:
    """(1, 3, f h w, 2): where each token begins and ends, in seconds, rows and columns, as the network's own, built on the device.

    The first latent frame is of one frame, the others of as many as the VAE compresses.
    """
    offset = transformer.get("causal_offset", 1)
    strides = transformer.get("vae_scale_factors", (8, 32, 32))
    spans = []
    for axis, (number, stride) in enumerate(zip((frames, height, width), strides, strict=True)):
        edges = torch.arange(number + 1, device=device, dtype=torch.float32) * stride
        if axis == 0:
            edges = (edges + offset - stride).clamp(min=0) / fps
        shape = [1, 1, 1, 2]
        shape[axis] = number
        spans.append(torch.stack([edges[:-1], edges[1:]], -1).view(shape).expand(frames, height, width, 2))
    return torch.stack(spans).flatten(1, 3).unsqueeze(0)


def statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the VAE's latents, (C, 1, 1, 1) each, float32, which lie beside its weights."""
    mean, deviation = (each.float().view(-1, 1, 1, 1) for each in (vae.latents_mean, vae.latents_std))
    return mean, deviation / vae.config.scaling_factor


@contextlib.contextmanager
def isolated(network: nn.Module) -> Iterator[None]:
    """Every call of the network is one with isolated modalities while the context lasts."""

    def isolate(_: nn.Module, args: Any, keys: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**keys, "isolate_modalities": True}

    hook = network.register_forward_pre_hook(isolate, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


LTX_2 = Family(
    pipeline=LTX2Pipeline,
    denoisers={"transformer": LTX2VideoTransformer3DModel},
    vae=AutoencoderKLLTX2Video,
    text_encoders=("text_encoder",),
    extras={
        "connectors": (LTX2TextConnectors,), "audio_vae": (AutoencoderKLLTX2Audio,),
        "vocoder": (LTX2Vocoder, LTX2VocoderWithBWE),
    },
    # Of the video's stream, as the authors' trainer recommends for videos alone.
    lora_targets=tuple(f"{attn}.{name}" for attn in ("attn1", "attn2") for name in ("to_k", "to_q", "to_v", "to_out.0")),
    adapter=LTX2,
    dtype=torch.bfloat16,
    noise_dtype=torch.float32,
    tiled_vae=True,
    encoder_layers=48,  # all of Gemma 3 12B, whose outputs the connectors read
    trains=lambda name: not any(part in name for part in AUDIO),
    note="It was trained on videos alone: `isolate_modalities` of the transformer, no audio. The pipeline draws video and audio "
    "together, where they see each other, so its videos are not those that the training's samples show.",
)  # fmt: skip
"""LTX-2 and LTX-2.3, text to video without sound: a flow-matching transformer, Gemma 3."""
