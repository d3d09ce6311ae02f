"""A pipeline as one .safetensors file under the names of the original code, as programs that people draw with read it.

CompVis/stable-diffusion (U-Net, VAE), Stability-AI/generative-models (the places of the text encoders), mlfoundations/open_clip (the
second text encoder of SDXL). What diffusers' `from_single_file` makes of the file is the pipeline again.
"""

import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sipo.backbones.family import Family
from sipo.backbones.lora_names import original
from sipo.errors import UserError
from sipo.files import removed_on_error, room_in

VAE = [
    ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"), ("mid_block.attentions.0", "mid.attn_1"),
    ("down_blocks", "down"), ("resnets", "block"), ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"),
    ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"),
    ("to_v", "v"), ("to_out.0", "proj_out"),
]  # fmt: skip
OPEN_CLIP = [
    ("embeddings.token_embedding", "token_embedding"), ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm", "ln_final"), ("encoder.layers", "transformer.resblocks"), ("layer_norm", "ln_"), ("fc1", "c_fc"),
    ("fc2", "c_proj"), ("self_attn", "attn"),
]  # fmt: skip


def write_single_file(pipeline: Any, family: Family, path: Path, about: dict[str, str]) -> None:
    """Write all networks of a pipeline, in their dtypes. `about`: texts for the file's header.

    Raises UserError for a family whose files hold no whole pipeline, and DiskFull.
    """
    require_single_file(pipeline, family)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(pipeline).items()}
    temporary = path.with_name(f".{path.name}.tmp")
    with room_in(path.parent, sum(tensor.nbytes for tensor in tensors.values())), removed_on_error(temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, {"format": "pt", **about})
        os.replace(temporary, path)


def require_single_file(pipeline: Any, family: Family) -> None:
    """Raises UserError where `write_single_file` would."""
    why = ""
    if family.name not in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        why = f"programs read a {family.name} as several files, and diffusers writes no original ones"
    elif pipeline.text_encoder is not None and pipeline.text_encoder.config.hidden_act != "quick_gelu":
        why = "of Stable Diffusion 2.x's text encoder diffusers keeps all layers but the last, which the original file needs"
    if why:
        raise UserError(f"--out: one checkpoint file is written of Stable Diffusion 1.x and XL; {why}: name a folder")


def _tensors(pipeline: Any) -> dict[str, Tensor]:
    found = {f"model.diffusion_model.{_unet(pipeline.unet, name)}": t for name, t in pipeline.unet.state_dict().items()}
    for name, tensor in pipeline.vae.state_dict().items():
        own = _vae(name, len(pipeline.vae.config.block_out_channels))
        is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", own)  # convolutions of one pixel there
        found[f"first_stage_model.{own}"] = tensor[:, :, None, None] if is_attention else tensor
    second = getattr(pipeline, "text_encoder_2", None)
    first = "conditioner.embedders.0" if second is not None else "cond_stage_model"
    for name, tensor in pipeline.text_encoder.state_dict().items():
        found[f"{first}.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    if second is not None:
        found |= {f"conditioner.embedders.1.model.{name}": t for name, t in _open_clip(second.state_dict()).items()}
    if (
        pipeline.scheduler.config.prediction_type == "v_prediction"
    ):  # by these names ComfyUI and kohya's scripts know it
        found["v_pred"] = torch.tensor([])
        if pipeline.scheduler.config.get("rescale_betas_zero_snr"):
            found["ztsnr"] = torch.tensor([])
    return found


def _unet(network: Any, name: str) -> str:
    module, _, leaf = name.rpartition(".")
    if (place := original(network, module)) is None:
        raise UserError(f"--out: the original code has no name for {name} of this U-Net: name a folder")
    return f"{place.name}.{leaf}"


def _vae(name: str, levels: int) -> str:
    """The decoder's levels are counted from the picture inwards there."""
    for ours, theirs in VAE:
        name = name.replace(ours, theirs)
    return re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}", name)


def _open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values are stacked there, and the projection is transposed."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        own = name.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP:
            own = own.replace(ours, theirs)
        if own == "text_projection.weight":
            found["text_projection"] = tensor.T
        elif ".q_proj." in own:
            rows = [weights[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            found[own.replace(".q_proj.", ".in_proj_")] = torch.cat(rows)
        elif not re.search(r"\.[kv]_proj\.", own):
            found[own] = tensor
    return found
