"""Tiny pipelines with random weights, built from config: nothing is downloaded."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from support.encoders import t5, t5_tokenizer, text_encoder, tokenizer
from support.newer_checkpoints import (
    NEWER,
    qwen_image_edit,
    qwen_image_edit_plus,
    wan21_i2v,
    wan22_5b_i2v,
    wan22_i2v,
    wan_pipeline,
    wan_transformer,
    wan_vae,
)

SD_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, scaling_factor=0.18215,
    )  # fmt: skip


def unet(cross_attention_dim: int, **extra) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=cross_attention_dim, **extra,
    )  # fmt: skip


def stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Path:
    """An SD1.5-type checkpoint for 16 x 16 pixels."""
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=tokenizer(), unet=unet(32),
        scheduler=PNDMScheduler(**SD_BETAS, skip_prk_steps=True, steps_offset=1, prediction_type=prediction_type),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def stable_diffusion_xl(folder: Path, second: int = 32) -> Path:
    """An SDXL-type checkpoint for 16 x 16 pixels: two text encoders (the second one's width), pooled embeddings, time ids."""
    torch.manual_seed(0)
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8,
             "projection_class_embeddings_input_dim": second + 6 * 8}  # fmt: skip
    StableDiffusionXLPipeline(
        vae=vae(), text_encoder=text_encoder(), text_encoder_2=text_encoder(projection=True, width=second),
        tokenizer=tokenizer(), tokenizer_2=tokenizer(), unet=unet(32 + second, **added), scheduler=DDIMScheduler(**SD_BETAS),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flux(folder: Path, pipeline: type[DiffusionPipeline] = FluxPipeline) -> Path:
    """A FLUX.1-dev-type checkpoint: dynamic shift, guidance embedding, 4 latent channels; use it at 16 x 16 pixels."""
    torch.manual_seed(0)
    pipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, scaling_factor=0.3611,
            shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        text_encoder=text_encoder(), tokenizer=tokenizer(), text_encoder_2=t5(), tokenizer_2=t5_tokenizer(512),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flux_kontext(folder: Path) -> Path:
    """A FLUX.1-Kontext-type checkpoint: the parts of FLUX.1-dev's; use it at 16 x 16 pixels."""
    return flux(folder, FluxKontextPipeline)


def cogvideox(folder: Path, rotary: bool) -> Path:
    """A CogVideoX-type checkpoint, of 2B's kind or (rotary) 5B's, for 9 frames of 16 x 16 pixels."""
    torch.manual_seed(0)
    CogVideoXPipeline(
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=8,
            text_embed_dim=32, num_layers=2, sample_width=4, sample_height=4, sample_frames=9, patch_size=2,
            temporal_compression_ratio=4, max_text_seq_length=16, use_rotary_positional_embeddings=rotary,
        ),
        vae=AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 3, up_block_types=("CogVideoXUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4,
            temporal_compression_ratio=4, scaling_factor=0.7 if rotary else 1.15258426,
        ),
        scheduler=CogVideoXDDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
            rescale_betas_zero_snr=True, snr_shift_scale=1.0 if rotary else 3.0, timestep_spacing="trailing",
            clip_sample=False, set_alpha_to_one=True,
        ),
        text_encoder=t5(), tokenizer=t5_tokenizer(16),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def wan(folder: Path) -> Path:
    """A Wan2.1-type checkpoint; use it at 5 frames of 16 x 16 pixels."""
    torch.manual_seed(0)
    return wan_pipeline(folder, 3.0, transformer=wan_transformer(4), vae=wan_vae())


# Every family: how its tiny checkpoint is made, and the settings of `data` at which it is used.
FAMILIES = {
    "sd": (stable_diffusion, {}),
    "sdxl": (stable_diffusion_xl, {}),
    "flux": (flux, {"resolution": 16}),
    "cogvideox-2b": (lambda folder: cogvideox(folder, rotary=False), {}),
    "cogvideox-5b": (lambda folder: cogvideox(folder, rotary=True), {}),
    "wan": (wan, {"resolution": 16, "num_frames": 5}),
    **NEWER,
}

# Families of models that edit: their pairs have sources.
EDITING = {
    "flux-kontext": (flux_kontext, {"resolution": 16}),
    "qwen-image-edit": (qwen_image_edit, {"resolution": 32}),
    "qwen-image-edit-plus": (qwen_image_edit_plus, {"resolution": 32}),
    "wan2.1-i2v": (wan21_i2v, {"resolution": 16, "num_frames": 5}),
    "wan2.2-i2v": (wan22_i2v, {"resolution": 16, "num_frames": 5}),
    "wan2.2-5b-i2v": (wan22_5b_i2v, {"resolution": 32, "num_frames": 5, "fps": 16}),
}
