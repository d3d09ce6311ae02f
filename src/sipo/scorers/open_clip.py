"""open_clip checkpoints of ViT-H/14's kind as transformers' `CLIPModel`: the same network under other names.

open_clip fuses query, key and value into `attn.in_proj_*`, and keeps its two projections transposed.
"""

import re
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from sipo.errors import UserError
from sipo.scorers.weights import load_model

VISION_HEAD, TEXT_HEAD = 80, 64  # widths of an attention head in ViT-H/14; a checkpoint's shapes do not tell them
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
         "mlp.c_proj": "mlp.fc2"}  # fmt: skip


def load_open_clip(tensors: dict[str, Tensor], source: object, dtype: torch.dtype) -> Any:
    """The `CLIPModel` of an open_clip state dict. Raises UserError where `source` holds something else."""
    try:
        config = config_of(tensors)
        converted = convert_open_clip(tensors)
    except KeyError as error:
        raise UserError(
            f"{source} is not an open_clip checkpoint like ViT-H/14's: missing or unexpected {error}"
        ) from None
    return load_model(CLIPModel, None, dtype, str(source), config=config, state_dict=converted)


def convert_open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and tensors of `CLIPModel`. KeyError for a name that has no counterpart."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
        if name == "attn_mask":  # the causal mask, which old versions saved
            continue
        elif name in NAMES:
            found[NAMES[name]] = tensor
        elif name in PROJECTIONS:
            found[PROJECTIONS[name]] = tensor.T.contiguous()
        elif block:
            tower, number, part, kind = block.groups()
            layer = f"{'vision_model' if tower else 'text_model'}.encoder.layers.{number}"
            if part == "attn.in_proj":
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    found[f"{layer}.self_attn.{letter}_proj.{kind}"] = third.contiguous()
            else:
                found[f"{layer}.{BLOCK[part]}.{kind}"] = tensor
        else:
            raise KeyError(name)
    return found


def config_of(tensors: dict[str, Tensor]) -> CLIPConfig:
    """The architecture, from the shapes; heads are as wide as ViT-H/14's, its activation is the exact GELU."""
    width, _, patch, _ = tensors["visual.conv1.weight"].shape
    patches = tensors["visual.positional_embedding"].shape[0] - 1
    vocabulary, text_width = tensors["token_embedding.weight"].shape
    shared = {"hidden_act": "gelu", "projection_dim": tensors["visual.proj"].shape[1]}
    vision = {
        "hidden_size": width, "num_hidden_layers": _depth(tensors, "visual.transformer"), "patch_size": patch,
        "intermediate_size": tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_attention_heads": max(width // VISION_HEAD, 1), "image_size": round(patches**0.5) * patch,
    }  # fmt: skip
    text = {
        "hidden_size": text_width, "num_hidden_layers": _depth(tensors, "transformer"), "vocab_size": vocabulary,
        "intermediate_size": tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_attention_heads": max(text_width // TEXT_HEAD, 1),
        "max_position_embeddings": tensors["positional_embedding"].shape[0],
        "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
    }  # fmt: skip
    return CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=shared["projection_dim"])


def _depth(tensors: dict[str, Tensor], tower: str) -> int:
    return len({name for name in tensors if re.fullmatch(rf"{re.escape(tower)}\.resblocks\.\d+\.ln_1\.weight", name)})
