"""Tiny random scorers on disk, in the layouts in which the real ones are published, and pictures of awkward sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import checkpoints as tiny
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, CLIPConfig
from transformers import CLIPModel as Model

from sipo.scorers.aesthetic import AestheticHead

PROMPTS = ["a red dog", "two cats, one of them asleep on a very long sofa", "sky", "a"]


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return PROMPTS


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Four pictures with structure and noise: wide with an odd rest, tall, square, smaller than the model's input."""
    rng = np.random.default_rng(0)
    found = []
    for width, height in ((71, 40), (33, 90), (64, 64), (9, 13)):
        ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + np.array([0, 60, 120])
        found.append(Image.fromarray(((ramp + rng.integers(0, 90, (height, width, 3))) % 256).astype(np.uint8)))
    return found


def spread(model: torch.nn.Module, seed: int) -> None:
    """Random weights large enough that every part of a network shows in its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = "norm" in name.lower() or "layrnorm" in name.lower()
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "logit_scale":
                continue
            parameter.copy_(1 + 0.2 * noise if norm and name.endswith("weight") else noise * (0.1 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5))  # fmt: skip


def clip_model(activation: str = "quick_gelu", vision_width: int = 160, text_width: int = 128) -> Model:
    """A CLIP of two layers a tower with heads as wide as ViT-H/14's (80 and 64), for 32 x 32 pixels."""
    vision = {"hidden_size": vision_width, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8, "projection_dim": 24, "hidden_act": activation}  # fmt: skip
    text = {"hidden_size": text_width, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2,
            "vocab_size": 190, "max_position_embeddings": 16, "projection_dim": 24, "hidden_act": activation,
            "bos_token_id": 188, "eos_token_id": 189, "pad_token_id": 189}  # fmt: skip
    model = Model(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    spread(model, 3)
    return model


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP as the hub holds one: config, safetensors, tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    clip_model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def open_clip_file(tmp_path_factory) -> tuple[Path, Model]:
    """An open_clip checkpoint beside a tokenizer, and the transformers model whose weights it holds."""
    folder, model = tmp_path_factory.mktemp("hps"), clip_model("gelu")
    path = folder / "HPS_v2_compressed.pt"
    torch.save({"epoch": 3, "state_dict": to_open_clip(model.state_dict())}, path)
    tiny.tokenizer().save_pretrained(folder)
    return path, model


def to_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' names into open_clip's, written from open_clip's side: towers, blocks, fused projections."""
    found = {"logit_scale": state["logit_scale"], "visual.proj": state["visual_projection.weight"].T.contiguous(),
             "text_projection": state["text_projection.weight"].T.contiguous(),
             "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
             "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
             "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
             "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
             "positional_embedding": state["text_model.embeddings.position_embedding.weight"]}  # fmt: skip
    for kind in ("weight", "bias"):
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        for tower, prefix in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
            for i in range(2):
                layer, block = f"{tower}.encoder.layers.{i}", f"{prefix}.resblocks.{i}"
                found[f"{block}.attn.in_proj_{kind}"] = torch.cat(
                    [state[f"{layer}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
                )
                found[f"{block}.attn.out_proj.{kind}"] = state[f"{layer}.self_attn.out_proj.{kind}"]
                found[f"{block}.ln_1.{kind}"] = state[f"{layer}.layer_norm1.{kind}"]
                found[f"{block}.ln_2.{kind}"] = state[f"{layer}.layer_norm2.{kind}"]
                found[f"{block}.mlp.c_fc.{kind}"] = state[f"{layer}.mlp.fc1.{kind}"]
                found[f"{block}.mlp.c_proj.{kind}"] = state[f"{layer}.mlp.fc2.{kind}"]
    return found


@pytest.fixture(scope="session")
def head_file(tmp_path_factory) -> Path:
    """An aesthetics head for the tiny CLIP, under the official name and format."""
    head = AestheticHead(24)
    spread(head, 4)
    path = tmp_path_factory.mktemp("head") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(head.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def image_reward_folder(tmp_path_factory) -> Path:
    """An ImageReward.pt of two layers with salesforce/BLIP's names, unused projections included, and BERT's tokenizer."""
    vision = BlipVisionModel(BlipVisionConfig(hidden_size=128, intermediate_size=96, num_hidden_layers=2,
                             num_attention_heads=2, image_size=32, patch_size=8))  # fmt: skip
    text = BlipTextModel(
        BlipTextConfig(vocab_size=120, hidden_size=64, encoder_hidden_size=128, intermediate_size=48,
                       num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=40, is_decoder=True),
        add_pooling_layer=False,
    )  # fmt: skip
    head = AestheticHead(64)
    for seed, part in enumerate((vision, text, head)):
        spread(part, seed)
    folder = tmp_path_factory.mktemp("imagereward")
    torch.save(to_image_reward(vision.state_dict(), text.state_dict(), head.state_dict()), folder / "ImageReward.pt")
    letters = [chr(code) for code in range(97, 123)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), ","]
    BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def to_image_reward(vision: dict, text: dict, head: dict) -> dict[str, torch.Tensor]:
    names = {"embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed",
             "embeddings.patch_embedding": "patch_embed.proj", "post_layernorm": "norm", "encoder.layers": "blocks",
             "layer_norm": "norm", "self_attn.projection": "attn.proj", "self_attn": "attn"}  # fmt: skip
    found = {f"blip.text_encoder.{name}": tensor for name, tensor in text.items()}
    found["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    for name, tensor in vision.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        found[f"blip.visual_encoder.{name}"] = tensor
    found |= {f"mlp.{name}": tensor for name, tensor in head.items()}
    return found | {"blip.vision_proj.weight": torch.zeros(4, 128), "blip.text_proj.bias": torch.zeros(4)}


@pytest.fixture(scope="session")
def hps_safetensors(open_clip_file, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("safe") / "hps.safetensors"
    save_file({k: v.contiguous() for k, v in to_open_clip(open_clip_file[1].state_dict()).items()}, path)
    return path
