"""What one forward of each family's denoiser takes, as its diffusers pipeline passes it: shapes alone.

A video's latent frames are (F - 1) / 4 + 1; the latents of FLUX are packed 2 x 2; text comes padded to a fixed length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor

from sipo.backbones.cogvideox import CogVideoX
from sipo.backbones.flux import Flux
from sipo.backbones.stable_diffusion import StableDiffusion
from sipo.backbones.wan import Wan
from sipo.errors import UserError
from sipo.size import Size

Configs = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class MetaFamily:
    """One pipeline class. `denoiser`: its part's name; `tokens`: of a prompt, for encoders that do not say it themselves.

    `classes`: of the denoiser and the VAE; `num_text_encoders` is what else tells the families apart.
    """

    denoiser: str
    classes: tuple[str, str]
    num_text_encoders: int
    lora_targets: tuple[str, ...]
    own_size: Callable[[Configs], Size]
    tokens: Callable[[Configs], int]
    inputs: Callable[[Configs, Size, int, torch.dtype], dict[str, Any]]


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def _divided(size: Size, spatial: int, temporal: int = 1) -> tuple[int, int, int]:
    """Latent frames, height and width of a size. Raises UserError when it does not divide."""
    if size.height % spatial or size.width % spatial:
        raise UserError(
            f"data.resolution: {size.height} x {size.width} does not divide by {spatial}, as this model needs"
        )
    if (size.num_frames - 1) % temporal:
        raise UserError(f"data.num_frames: this model takes 1 + a multiple of {temporal} frames, not {size.num_frames}")
    return (size.num_frames - 1) // temporal + 1, size.height // spatial, size.width // spatial


def _kl_stride(configs: Configs) -> int:
    return 2 ** (len(configs["vae"]["block_out_channels"]) - 1)


def _unet_size(configs: Configs) -> Size:
    side = configs["unet"]["sample_size"] * _kl_stride(configs)
    return Size(side, side)


def _unet_inputs(configs: Configs, size: Size, batch: int, dtype: torch.dtype) -> dict[str, Any]:
    unet = configs["unet"]
    _, height, width = _divided(size, _kl_stride(configs))
    tokens = configs["text_encoder"].get("max_position_embeddings", 77) if "text_encoder" in configs else 77
    inputs: dict[str, Any] = {
        "sample": _empty(batch, unet["in_channels"], height, width),
        "timestep": _empty(batch),
        "encoder_hidden_states": _empty(batch, tokens, unet["cross_attention_dim"], dtype=dtype),
    }
    if unet.get("addition_embed_type") == "text_time":
        pooled = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]
        added = {"text_embeds": _empty(batch, pooled, dtype=dtype), "time_ids": _empty(batch, 6, dtype=dtype)}
        inputs["added_cond_kwargs"] = added
    return inputs


def _flux_size(configs: Configs) -> Size:
    side = 128 * _kl_stride(configs)  # FluxPipeline.default_sample_size
    return Size(side, side)


def _flux_inputs(configs: Configs, size: Size, batch: int, dtype: torch.dtype) -> dict[str, Any]:
    network, tokens = configs["transformer"], _flux_tokens(configs)
    _, height, width = _divided(size, 2 * _kl_stride(configs))
    return {
        "hidden_states": _empty(batch, height * width, network["in_channels"]),
        "timestep": _empty(batch),
        "guidance": _empty(batch) if network.get("guidance_embeds") else None,
        "pooled_projections": _empty(batch, network["pooled_projection_dim"], dtype=dtype),
        "encoder_hidden_states": _empty(batch, tokens, network["joint_attention_dim"], dtype=dtype),
        "txt_ids": _empty(tokens, 3, dtype=dtype),
        "img_ids": _empty(height * width, 3, dtype=dtype),
    }


def _flux_tokens(configs: Configs) -> int:
    return 512  # FluxPipeline's max_sequence_length


def _cogvideox_size(configs: Configs) -> Size:
    network, stride = configs["transformer"], _kl_stride(configs)
    height, width = network["sample_height"] * stride, network["sample_width"] * stride
    return Size(height, width, network["sample_frames"], fps=8.0)


def _cogvideox_inputs(configs: Configs, size: Size, batch: int, dtype: torch.dtype) -> dict[str, Any]:
    network = configs["transformer"]
    spatial, patch = _kl_stride(configs), network["patch_size"]
    frames, height, width = _divided(size, spatial * patch, network.get("temporal_compression_ratio", 4))
    rope = None
    if network.get("use_rotary_positional_embeddings"):
        grid = (height, width)
        rope = get_3d_rotary_pos_embed(
            network["attention_head_dim"], ((0, 0), grid), grid, frames, device=torch.device("meta")
        )
    return {
        "hidden_states": _empty(batch, frames, network["in_channels"], height * patch, width * patch),
        "encoder_hidden_states": _empty(batch, _cogvideox_tokens(configs), network["text_embed_dim"], dtype=dtype),
        "timestep": _empty(batch),
        "image_rotary_emb": rope,
    }  # fmt: skip


def _cogvideox_tokens(configs: Configs) -> int:
    return configs["transformer"].get("max_text_seq_length", 226)


def _wan_size(configs: Configs) -> Size:
    return Size(480, 832, 81, fps=16.0)


def _wan_inputs(configs: Configs, size: Size, batch: int, dtype: torch.dtype) -> dict[str, Any]:
    network, halvings = configs["transformer"], configs["vae"]["temperal_downsample"]
    spatial, patch = 2 ** len(halvings), network["patch_size"]
    frames, height, width = _divided(size, spatial * patch[1], 2 ** sum(halvings))
    return {
        "hidden_states": _empty(batch, network["in_channels"], frames, height * patch[1], width * patch[2]),
        "timestep": _empty(batch),
        "encoder_hidden_states": _empty(batch, _wan_tokens(configs), network["text_dim"], dtype=dtype),
    }


def _wan_tokens(configs: Configs) -> int:
    return 512  # WanPipeline's max_sequence_length


def _unet(num_text_encoders: int) -> MetaFamily:
    return MetaFamily(
        "unet", ("UNet2DConditionModel", "AutoencoderKL"), num_text_encoders, StableDiffusion.lora_targets,
        _unet_size, lambda configs: 77, _unet_inputs,
    )  # fmt: skip


# The class that a checkpoint's model_index.json names -> its shapes.
META_FAMILIES = {
    "StableDiffusionPipeline": _unet(1),
    "StableDiffusionXLPipeline": _unet(2),
    "FluxPipeline": MetaFamily(
        "transformer", ("FluxTransformer2DModel", "AutoencoderKL"), 2, Flux.lora_targets,
        _flux_size, _flux_tokens, _flux_inputs,
    ),
    "CogVideoXPipeline": MetaFamily(
        "transformer", ("CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX"), 1, CogVideoX.lora_targets,
        _cogvideox_size, _cogvideox_tokens, _cogvideox_inputs,
    ),
    "WanPipeline": MetaFamily(
        "transformer", ("WanTransformer3DModel", "AutoencoderKLWan"), 1, Wan.lora_targets,
        _wan_size, _wan_tokens, _wan_inputs,
    ),
}  # fmt: skip
