"""The flow miniature's networks, freshly initialised, and its FluxPipeline."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from sipo.mini.networks import TEXT_WIDTH, Autoencoder
from sipo.mini.tokenizer import make_tokenizer
from sipo.mini.train_text import make_reader


def make_transformer() -> FluxTransformer2DModel:
    """Predicts the velocity of latents (B, 4, 16, 16), packed 2 x 2 into 64 tokens, beside 32 tokens of text."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(4, 14, 14),
    )


def make_networks(seed: int, device: str) -> nn.ModuleDict:
    """Fresh "transformer", and the "text_encoder" and "head" of `sipo.mini.train_text`."""
    torch.manual_seed(seed)
    return nn.ModuleDict({"transformer": make_transformer(), **make_reader()}).to(device)


def assemble(vae: Autoencoder, networks: nn.ModuleDict) -> FluxPipeline:
    """The one text encoder stands in both places: it gives the pooled state, as FLUX's CLIP does, and those of all tokens,
    as its T5 does."""
    vae.register_to_config(shift_factor=0.0)
    encoder, tokenizer = networks["text_encoder"], make_tokenizer()
    parts: dict[str, Any] = {
        "vae": vae,
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "text_encoder_2": encoder,
        "tokenizer_2": tokenizer,
        "transformer": networks["transformer"],
        "scheduler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
    }
    pipeline = FluxPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
