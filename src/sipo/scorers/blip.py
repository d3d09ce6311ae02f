"""ImageReward's network: BLIP-large's picture and text encoders from transformers, and a linear head on the first token.

The official checkpoint keeps the names of salesforce/BLIP; `convert_blip` returns transformers' own.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from sipo.errors import UserError
from sipo.scorers.aesthetic import AestheticHead, load_head
from sipo.scorers.weights import load_model

HEAD = 64  # width of an attention head, in BLIP-large's picture encoder as in BERT; not in the shapes
VISION = {
    "cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding", "norm": "post_layernorm",
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.qkv": "self_attn.qkv", "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
}  # fmt: skip


@dataclass(frozen=True)
class Blip:
    """The three parts, in evaluation mode."""

    vision: BlipVisionModel
    text: BlipTextModel
    head: AestheticHead

    @torch.inference_mode()
    def reward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B,) float32 before normalisation, of pixels (B, 3, S, S) and tokens (B, L) with a mask (1: a token)."""
        device = self.vision.device
        patches = self.vision(pixels.to(device, self.vision.dtype)).last_hidden_state  # (B, N, D)
        states = self.text(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            encoder_hidden_states=patches.to(self.text.dtype),
        ).last_hidden_state  # (B, L, D)
        return self.head(states[:, 0].float())[:, 0]


def load_blip(tensors: dict[str, Tensor], source: object, dtype: torch.dtype, device: torch.device) -> Blip:
    """From an ImageReward state dict; the head stays float32. Raises UserError where `source` holds something else."""
    try:
        parts, configs = convert_blip(tensors), configs_of(tensors)
    except KeyError as error:
        raise UserError(f"{source} is not an ImageReward checkpoint: missing or unexpected {error}") from None
    head = load_head(parts["head"], source)
    # Its text encoder adds a mask of numbers to the attention scores, which only the eager attention makes.
    vision = load_model(
        BlipVisionModel, None, dtype, str(source), config=configs[0], state_dict=parts["vision"]
    )  # fmt: skip
    text = load_model(
        BlipTextModel, None, dtype, str(source), config=configs[1], state_dict=parts["text"],
        add_pooling_layer=False, attn_implementation="eager",
    )  # fmt: skip
    return Blip(vision.to(device), text.to(device), head.to(device))


def convert_blip(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """State dicts of the parts: vision, text, head. KeyError for an unknown name; BLIP's unused projections go."""
    parts: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "head": {}}
    for name, tensor in tensors.items():
        if name.startswith("mlp."):
            parts["head"][name.removeprefix("mlp.")] = tensor
        elif name.startswith("blip.text_encoder."):
            if not name.endswith("embeddings.position_ids"):
                parts["text"][name.removeprefix("blip.text_encoder.")] = tensor
        elif name.startswith("blip.visual_encoder."):
            parts["vision"][_vision_name(name.removeprefix("blip.visual_encoder."))] = tensor
        elif not name.startswith(("blip.vision_proj.", "blip.text_proj.")):
            raise KeyError(name)
    return parts


def configs_of(tensors: dict[str, Tensor]) -> tuple[BlipVisionConfig, BlipTextConfig]:
    """The architecture, from the shapes, with BLIP's own constants (transformers' defaults are others)."""
    patches, width = tensors["blip.visual_encoder.pos_embed"].shape[1:]
    patch = tensors["blip.visual_encoder.patch_embed.proj.weight"].shape[-1]
    vision = BlipVisionConfig(
        hidden_size=width, num_attention_heads=max(width // HEAD, 1), patch_size=patch, layer_norm_eps=1e-6,
        intermediate_size=tensors["blip.visual_encoder.blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_depth(tensors, r"blip\.visual_encoder\.blocks\.\d+\.norm1\.weight"),
        image_size=round((patches - 1) ** 0.5) * patch,
    )  # fmt: skip
    vocabulary, text_width = tensors["blip.text_encoder.embeddings.word_embeddings.weight"].shape
    layer = "blip.text_encoder.encoder.layer"
    text = BlipTextConfig(
        vocab_size=vocabulary, hidden_size=text_width, num_attention_heads=max(text_width // HEAD, 1),
        encoder_hidden_size=tensors[f"{layer}.0.crossattention.self.key.weight"].shape[1], layer_norm_eps=1e-12,
        intermediate_size=tensors[f"{layer}.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_depth(tensors, rf"{re.escape(layer)}\.\d+\.intermediate\.dense\.weight"),
        max_position_embeddings=tensors["blip.text_encoder.embeddings.position_embeddings.weight"].shape[0],
        is_decoder=True,  # gives the layers cross-attention; the mask stays an encoder's
    )  # fmt: skip
    return vision, text


def _vision_name(name: str) -> str:
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block:
        number, part, kind = block.groups()
        return f"encoder.layers.{number}.{VISION[part]}.{kind}"
    if name in VISION:
        return VISION[name]
    part, _, kind = name.rpartition(".")
    return f"{VISION[part]}.{kind}"


def _depth(tensors: dict[str, Tensor], pattern: str) -> int:
    return sum(1 for name in tensors if re.fullmatch(pattern, name))
