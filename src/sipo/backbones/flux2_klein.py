"""FLUX.2-klein: a flow transformer over latents in patches of 2 x 2, each a token, with Qwen3 for prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Configs, Family, Media, Sizes, draw, kl_stride, meta, vae_moments
from sipo.backbones.shifts import dynamic_shift
from sipo.schedule import FlowSchedule
from sipo.size import Size

MAX_TOKENS = 512  # the pipeline's default
STEPS, DISTILLED_STEPS = 50, 4  # of sampling, by the models' cards: the pipeline's shift depends on them too
SINGLE_BLOCKS = 48  # the most that a FLUX.2 has


class Flux2Klein:
    """`Flux2KleinPipeline` for text (see `sipo.backbones.family.Adapter`). Latents: (B, 4 C, h / 2, w / 2), as in its loop."""

    boundaries = ()

    def __init__(self, configs: Configs) -> None:
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]
        self.patch = 2 * kl_stride(configs)  # pixels

    @property
    def sizes(self) -> Sizes:
        side = self.vae["sample_size"]
        return Sizes(Size(side, side), self.patch, self.patch)

    @property
    def tokens(self) -> dict[str, int]:
        return {"text_encoder": MAX_TOKENS}

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return self.transformer["in_channels"], size.height // self.patch, size.width // self.patch

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        return {"encoder_hidden_states": meta(batch, MAX_TOKENS, self.transformer["joint_attention_dim"], dtype=dtype)}

    def schedule(self, size: Size) -> FlowSchedule:
        """e^mu of the pipeline's own fit, for the number of image tokens and the usual number of sampling steps."""
        config, tokens = self.configs["scheduler"], (size.height // self.patch) * (size.width // self.patch)
        steps = DISTILLED_STEPS if self.configs["model_index"].get("is_distilled") else STEPS
        dynamic = dynamic_shift(config, compute_empirical_mu(tokens, steps))
        return FlowSchedule(
            config["num_train_timesteps"], dynamic if config.get("use_dynamic_shifting") else config["shift"]
        )

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        return {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = mean + std noise, (B, 4 C, h / 2, w / 2); `encode_media` has scaled both."""
        return draw(moments, noise)

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, 4 C, h / 2, w / 2)."""
        hidden, (height, width) = conditioning["encoder_hidden_states"], xt.shape[2:]
        tokens = denoiser(
            hidden_states=xt.to(hidden.dtype).flatten(2).transpose(1, 2),
            timestep=t / 1000,
            encoder_hidden_states=hidden,
            txt_ids=positions(1, 1, hidden.shape[1], xt.device),
            img_ids=positions(height, width, 1, xt.device),
        ).sample
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, 512, 3 D) of three of Qwen3's layers side by side, padding among them."""
        hidden, _ = pipeline.encode_prompt(prompts, device=pipeline.transformer.device, max_sequence_length=MAX_TOKENS)
        return {"encoder_hidden_states": hidden}

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, 4 C, h / 2, w / 2), in patches, standardized by the statistics that the VAE holds."""
        mean, logvar = (Flux2KleinPipeline._patchify_latents(each) for each in vae_moments(vae, pixels).unbind(1))
        center, deviation = statistics(vae)
        return torch.stack([(mean - center) / deviation, logvar - 2 * deviation.log()], dim=1)

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        center, deviation = statistics(pipeline.vae)
        latents = Flux2KleinPipeline._unpatchify_latents(x0 * deviation + center).to(pipeline.vae.dtype)
        return pipeline.image_processor.postprocess(pipeline.vae.decode(latents).sample)

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
            prompt=prompts, generator=generators, num_inference_steps=steps, guidance_scale=guidance,
            height=size.height, width=size.width, max_sequence_length=MAX_TOKENS,
        ).images  # fmt: skip


def positions(height: int, width: int, length: int, device: torch.device) -> Tensor:
    """(height width length, 4): 0, row, column, and place in the text, as the pipeline's, built on the device."""
    rows, columns, places = (
        torch.arange(number, device=device, dtype=torch.float32) for number in (height, width, length)
    )
    return torch.cartesian_prod(torch.zeros(1, device=device), rows, columns, places)


def statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the VAE's latents in patches, (4 C, 1, 1) each, float32, which lie beside its weights."""
    mean, variance = (each.float().view(-1, 1, 1) for each in (vae.bn.running_mean, vae.bn.running_var))
    return mean, (variance + vae.config.batch_norm_eps).sqrt()


FLUX2_KLEIN = Family(
    pipeline=Flux2KleinPipeline,
    denoisers={"transformer": Flux2Transformer2DModel},
    vae=AutoencoderKLFlux2,
    text_encoders=("text_encoder",),
    # As diffusers' DreamBooth script: of the image's stream in double blocks, and of single ones.
    lora_targets=(
        "to_k", "to_q", "to_v", "to_out.0", "to_qkv_mlp_proj",
        *(f"single_transformer_blocks.{number}.attn.to_out" for number in range(SINGLE_BLOCKS)),
    ),
    adapter=Flux2Klein,
    dtype=torch.bfloat16,
    template=12,  # <|im_start|> user \n ... <|im_end|> \n <|im_start|> assistant \n <think> \n\n </think> \n\n
    encoder_layers=28,  # one more than the last that is read
)  # fmt: skip
"""FLUX.2-klein: a flow-matching transformer, Qwen3."""
