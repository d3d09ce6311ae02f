"""The video miniature's networks, freshly initialised, and its CogVideoXPipeline."""

from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from torch import nn
from transformers import CLIPTokenizer

from sipo.mini.cells import KINDS
from sipo.mini.networks import TEXT_WIDTH, Autoencoder, make_text_encoder
from sipo.mini.tokenizer import MAX_LENGTH, make_tokenizer
from sipo.mini.video.clips import FRAMES
from sipo.mini.video.wording import WORDS
from sipo.mini.world import SIZE

CHANNELS, LATENT_SIDE = 6, 16

AFTER = 13
"""Tokens from here on see the whole caption, see `sipo.mini.cells.AFTER`: the longest has 12 words."""


def make_vae() -> Autoencoder:
    """Pixels (B, 3, 9, 64, 64) <-> latents (B, 6, 5, 16, 16). The scaling factor is set once it has been measured."""
    make: Any = AutoencoderKLCogVideoX
    return make(
        block_out_channels=(16, 32, 32),
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        temporal_compression_ratio=2,
        sample_height=SIZE,
        sample_width=SIZE,
        scaling_factor=1.0,
    )


def make_transformer() -> CogVideoXTransformer3DModel:
    """Predicts v of latents (B, 5, 6, 16, 16), in patches of 4 x 4: 80 tokens beside 32 tokens of text."""
    return CogVideoXTransformer3DModel(
        num_attention_heads=5,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=128,
        text_embed_dim=TEXT_WIDTH,
        num_layers=6,
        sample_width=LATENT_SIDE,
        sample_height=LATENT_SIDE,
        sample_frames=FRAMES,
        patch_size=4,
        temporal_compression_ratio=2,
        max_text_seq_length=MAX_LENGTH,
    )


def make_scheduler() -> CogVideoXDDIMScheduler:
    """CogVideoX-2B's: v-prediction, zero terminal SNR."""
    return CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def video_tokenizer() -> CLIPTokenizer:
    return make_tokenizer(WORDS)


def make_reader() -> nn.ModuleDict:
    """A fresh "text_encoder", and the "head" that reads from the state of a cell's token what stands there in the first,
    the middle and the last frame."""
    head = nn.Linear(TEXT_WIDTH, 3 * (len(KINDS) + 1))
    return nn.ModuleDict({"text_encoder": make_text_encoder(video_tokenizer()), "head": head})


def make_networks(seed: int, device: str) -> nn.ModuleDict:
    """Fresh "transformer", "text_encoder" and "head"."""
    torch.manual_seed(seed)
    return nn.ModuleDict({"transformer": make_transformer(), **make_reader()}).to(device)


def assemble(vae: Autoencoder, networks: nn.ModuleDict) -> CogVideoXPipeline:
    """A small CLIP text encoder stands in the place of T5."""
    parts: dict[str, Any] = {
        "tokenizer": video_tokenizer(),
        "text_encoder": networks["text_encoder"],
        "vae": vae,
        "transformer": networks["transformer"],
        "scheduler": make_scheduler(),
    }
    pipeline = CogVideoXPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
