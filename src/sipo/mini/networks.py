"""The miniature's networks in diffusers' and transformers' classes, freshly initialised."""

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from transformers import CLIPTextConfig, CLIPTextModel

from sipo.mini.tokenizer import MAX_LENGTH
from sipo.mini.world import SIZE

TEXT_WIDTH = 128

Autoencoder = Any
"""A diffusers AutoencoderKL, whose annotations hide the fields of its outputs and of its config."""


def make_vae() -> Autoencoder:
    """Pixels (B, 3, 64, 64) <-> latents (B, 4, 16, 16). The scaling factor is set once it has been measured."""
    make: Any = AutoencoderKL  # annotated for a single block
    return make(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def make_unet() -> UNet2DConditionModel:
    """Predicts epsilon for latents (B, 4, 16, 16); attention at 8 x 8; 0.37 GFLOP per forward and sample."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=16,
    )


def make_text_encoder(tokenizer: Any) -> CLIPTextModel:
    """Token ids (B, 32) -> embeddings (B, 32, TEXT_WIDTH)."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
