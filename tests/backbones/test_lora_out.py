"""Trained adapters under the names of other programs: by their key rules, transcribed here, and through diffusers' loader."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from support.original import unet_name

from sipo.backbones import load_backbone
from sipo.backbones.lora import FILE, add_adapters, read_lora
from sipo.config import ModelConfig
from sipo.errors import UserError

ALPHA, RANK = 16.0, 4
FAMILIES = ["sd", "sdxl", "flux", "wan", "cogvideox-2b"]
MORE = {
    "sd": ["conv1", "time_emb_proj", "ff.net.0.proj", "conv", "proj_in"],
    "flux": ["proj_mlp", "ff.net.2", "norm1.linear", "norm.linear"],
    "wan": ["ffn.net.0.proj", "ffn.net.2"],
}

# black-forest-labs/flux: model.py and layers.py; Wan-Video/Wan2.1: wan/modules/model.py
FLUX = [
    f"double_blocks.0.{stream}_{module}"
    for stream in ("img", "txt")
    for module in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2", "mod.lin")
]
FLUX += ["single_blocks.0.linear1", "single_blocks.0.linear2", "single_blocks.0.modulation.lin"]  # fmt: skip
WAN = [f"blocks.{n}.{kind}_attn.{letter}" for n in (0, 1) for kind in ("self", "cross") for letter in "qkvo"]
WAN += [f"blocks.{n}.ffn.{m}" for n in (0, 1) for m in (0, 2)]


def adapted(folder: Path, family: str):
    """A backbone with random adapters, and their weights."""
    backbone = load_backbone(ModelConfig(str(folder)))
    torch.manual_seed(0)
    weights = add_adapters(backbone.denoiser, [*backbone.lora_targets, *MORE.get(family, [])], RANK, ALPHA)
    for weight in weights.values():
        torch.nn.init.normal_(weight.data, std=0.2)
    return backbone, {name: weight.detach() for name, weight in weights.items()}


def modules(weights: dict) -> set[str]:
    return {name.split(".lora_")[0] for name in weights}


def comfyui_keys(family: str, adapted: set[str]) -> set[str]:
    """What comfy/lora.py: model_lora_keys_unet knows: the original names behind `diffusion_model.` or flat behind
    `lora_unet_`; of U-Nets diffusers' names, flat; of FLUX diffusers' names behind `transformer.`"""
    if family in ("sd", "sdxl"):
        names = {unet_name(module) for module in adapted} | adapted
        return {f"lora_unet_{name.replace('.', '_')}" for name in names}
    if family == "flux":
        return {f"transformer.{module}" for module in adapted} | {
            f"lora_unet_{name.replace('.', '_')}" for name in FLUX
        }
    return {f"diffusion_model.{name}" for name in WAN}


def kohya_keys(family: str, adapted: set[str]) -> set[str]:
    """LoRANetwork: `lora_unet_` and the module's path, flat, in kohya's own networks: SD's has diffusers' names."""
    names = {
        "sd": adapted,
        "sdxl": set(map(unet_name, adapted)) if family == "sdxl" else set(),
        "flux": FLUX,
        "wan": WAN,
    }
    return {f"lora_unet_{name.replace('.', '_')}" for name in names[family]}


@pytest.mark.parametrize("family", FAMILIES[:4])
@pytest.mark.parametrize("form", ["comfyui", "kohya", "diffusers", None])
def test_names_alphas_and_what_diffusers_makes_of_them(tiny_family, tmp_path, family, form):
    folder = tiny_family(family)
    backbone, weights = adapted(folder, family)
    backbone.save_lora(tmp_path, weights, form)
    tensors = load_file(tmp_path / FILE)
    stems = {key.split(".lora_")[0] for key in tensors if not key.endswith(".alpha")}
    keys = {"comfyui": comfyui_keys, "kohya": kohya_keys}.get(
        form or ("comfyui" if family.startswith("sd") else "diffusers")
    )
    if keys:
        assert stems <= keys(family, modules(weights))
        assert all(f"{stem}.alpha" in tensors for stem in stems)
    if (family, form) in (("sdxl", "kohya"), ("flux", "kohya")):
        return  # diffusers reads these names for the published sizes alone
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(tmp_path)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    theirs = pipeline.unet if family.startswith("sd") else pipeline.transformer
    ours = load_backbone(ModelConfig(str(folder), lora=str(tmp_path))).denoiser
    base = load_backbone(ModelConfig(str(folder))).denoiser.state_dict()
    changed = 0
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name
        changed += not torch.equal(one, base[name])
    assert changed == len(modules(weights))


@pytest.mark.parametrize(
    ("family", "form"), [("sd", None), ("sdxl", "kohya"), ("flux", "kohya"), ("wan", "kohya"), ("wan", "comfyui")]
)
def test_every_form_is_read_as_the_same_change(tiny_family, tmp_path, family, form):
    folder = tiny_family(family)
    backbone, weights = adapted(folder, family)
    backbone.save_lora(tmp_path / "a", weights, form)
    backbone.save_lora(tmp_path / "b", weights, "diffusers")
    one, other = (
        load_backbone(ModelConfig(str(folder), lora=str(tmp_path / name))).denoiser.state_dict() for name in "ab"
    )
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_policy_starts_from_its_file(tiny_family, tmp_path):
    for family in FAMILIES:
        backbone, weights = adapted(tiny_family(family), family)
        backbone.save_lora(tmp_path / family, weights)
        found = read_lora(
            backbone.family.denoisers,
            load_backbone(ModelConfig(str(tiny_family(family)))).denoiser,
            tmp_path / family,
            ALPHA,
        )
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in found)


def test_a_model_that_a_program_does_not_know(tiny_family, tmp_path):
    backbone, weights = adapted(tiny_family("cogvideox-2b"), "cogvideox-2b")
    for form in ("comfyui", "kohya"):
        with pytest.raises(
            UserError, match=f"{form} has no name for .* of the adapted modules of a CogVideoXTransformer3DModel"
        ):
            backbone.save_lora(tmp_path, weights, form)


def test_stacked_modules_hold_each_ones_change(tiny_family, tmp_path):
    """FLUX's q, k, v (and of a single block the MLP) are rows of one weight in kohya's file: alpha / rank up down."""
    backbone, weights = adapted(tiny_family("flux"), "flux")
    backbone.save_lora(tmp_path, weights, "kohya")
    tensors = load_file(tmp_path / FILE)
    stacks = {
        "double_blocks_0_img_attn_qkv": [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")],
        "double_blocks_0_txt_attn_qkv": [f"transformer_blocks.0.attn.add_{name}_proj" for name in "qkv"],
        "single_blocks_0_linear1": [
            f"single_transformer_blocks.0.{m}" for m in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        ],
    }
    for name, members in stacks.items():
        up, down, alpha = (
            tensors[f"lora_unet_{name}.{end}"] for end in ("lora_up.weight", "lora_down.weight", "alpha")
        )
        expected = [
            ALPHA / RANK * weights[f"{member}.lora_B.default.weight"] @ weights[f"{member}.lora_A.default.weight"]
            for member in members
        ]
        assert torch.allclose(alpha / len(down) * up @ down, torch.cat(expected), atol=1e-5)
