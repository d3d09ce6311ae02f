"""What a module of a network is called in LoRA files: by diffusers, by kohya's scripts, by ComfyUI, by the original code.

kohya-ss/sd-scripts: networks/lora.py (U-Net), lora_flux.py, lora_sd3.py; kohya-ss/musubi-tuner: networks/ (Wan, Qwen-Image,
Z-Image, FLUX.2); ComfyUI: comfy/lora.py, comfy/utils.py. Original code: Stability-AI/generative-models (U-Net), Stability-AI/sd3.5,
black-forest-labs/flux and flux2, Wan-Video/Wan2.1, Lightricks/LTX-2. Z-Image's "original" names are those of its single files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Form = Literal["diffusers", "kohya", "comfyui"]


@dataclass(frozen=True)
class Place:
    """A module in the original code: its name there, and which of the `of` modules stacked in it by rows it is."""

    name: str
    slot: int = 0
    of: tuple[str, ...] = ()  # the stacked modules of diffusers, from the first row on


@dataclass(frozen=True)
class Target:
    """Where a LoRA acts: the modules of a part whose rows, one after the other, it changes."""

    part: str
    modules: tuple[str, ...]


RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
UNET = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
FLUX = {"x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear"} | {
    f"time_text_embed.{ours}.linear_{n}": f"{theirs}.{'in' if n == 1 else 'out'}_layer"
    for ours, theirs in (("timestep_embedder", "time_in"), ("text_embedder", "vector_in"), ("guidance_embedder", "guidance_in"))
    for n in (1, 2)
}  # fmt: skip
DOUBLE = {"attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj", "ff.net.0.proj": "img_mlp.0",
          "ff.net.2": "img_mlp.2", "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2",
          "norm1.linear": "img_mod.lin", "norm1_context.linear": "txt_mod.lin"}  # fmt: skip
SINGLE = {"proj_out": "linear2", "norm.linear": "modulation.lin"}
DOUBLE_STACKED = {  # by the stacked module: what of a block lies in it, in order
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
SINGLE_STACKED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}
WAN = {"condition_embedder.time_embedder.linear_1": "time_embedding.0",
       "condition_embedder.time_embedder.linear_2": "time_embedding.2",
       "condition_embedder.text_embedder.linear_1": "text_embedding.0",
       "condition_embedder.text_embedder.linear_2": "text_embedding.2",
       "condition_embedder.time_proj": "time_projection.1", "proj_out": "head.head", "patch_embedding": "patch_embedding"}  # fmt: skip
WAN_BLOCK = {f"{ours}.{a}": f"{theirs}.{b}" for ours, theirs in (("attn1", "self_attn"), ("attn2", "cross_attn"))
             for a, b in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"), ("norm_q", "norm_q"), ("norm_k", "norm_k"))
             } | {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2", "norm2": "norm3"}  # fmt: skip

SD3 = {"pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder", "proj_out": "final_layer.linear"} | {
    f"time_text_embed.{ours}.linear_{n}": f"{theirs}.mlp.{2 * n - 2}"
    for ours, theirs in (("timestep_embedder", "t_embedder"), ("text_embedder", "y_embedder"))
    for n in (1, 2)
}  # fmt: skip
JOINT = {"attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj", "attn2.to_out.0": "x_block.attn2.proj",
         "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2", "ff_context.net.0.proj": "context_block.mlp.fc1",
         "ff_context.net.2": "context_block.mlp.fc2", "norm1.linear": "x_block.adaLN_modulation.1",
         "norm1_context.linear": "context_block.adaLN_modulation.1"}  # fmt: skip
JOINT_STACKED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}

FLUX2 = {"x_embedder": "img_in", "context_embedder": "txt_in", "proj_out": "final_layer.linear",
         "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
         "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
         "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
         "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer"} | {
    f"{name}.linear": f"{name}.lin"
    for name in ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
}  # fmt: skip
DOUBLE_2 = {"attn.to_out.0": "img_attn.proj", "attn.to_add_out": "txt_attn.proj", "ff.linear_in": "img_mlp.0",
            "ff.linear_out": "img_mlp.2", "ff_context.linear_in": "txt_mlp.0", "ff_context.linear_out": "txt_mlp.2"}  # fmt: skip
SINGLE_2 = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}

LTX_2 = {"proj_in": "patchify_proj", "audio_proj_in": "audio_patchify_proj", "time_embed": "adaln_single",
         "audio_time_embed": "audio_adaln_single", "prompt_adaln": "prompt_adaln_single",
         "audio_prompt_adaln": "audio_prompt_adaln_single", "av_cross_attn_video_scale_shift": "av_ca_video_scale_shift_adaln_single",
         "av_cross_attn_audio_scale_shift": "av_ca_audio_scale_shift_adaln_single",
         "av_cross_attn_video_a2v_gate": "av_ca_a2v_gate_adaln_single",
         "av_cross_attn_audio_v2a_gate": "av_ca_v2a_gate_adaln_single"}  # fmt: skip


def original(network: Any, module: str) -> Place | None:
    """The module in the original code of the network's model; None for a network or module without one."""
    kind = type(network).__name__.removeprefix("FSDP")
    if kind == "UNet2DConditionModel":
        return _unet(network.config, module)
    if kind == "FluxTransformer2DModel":
        return _flux(module, FLUX, DOUBLE, SINGLE, SINGLE_STACKED)
    if kind == "Flux2Transformer2DModel":
        return _flux(module, FLUX2, DOUBLE_2, SINGLE_2, {})
    if kind == "SD3Transformer2DModel":
        return _sd3(network.config, module)
    if kind == "QwenImageTransformer2DModel":
        return Place(module)
    if kind == "ZImageTransformer2DModel":
        return _z_image(module)
    if kind == "LTX2VideoTransformer3DModel":
        first, dot, rest = module.partition(".")
        return Place(LTX_2.get(first, first) + dot + rest)
    if kind == "WanTransformer3DModel":
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
        name = f"blocks.{block[1]}.{WAN_BLOCK.get(block[2])}" if block and block[2] in WAN_BLOCK else WAN.get(module)
        return Place(name) if name else None
    return None


def _unet(config: Any, module: str) -> Place | None:
    if module in UNET:
        return Place(UNET[module])
    found = re.fullmatch(
        r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", module
    )
    if not found:
        middle = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", module)
        if not middle:
            return None
        place = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return Place(f"middle_block.{place}.{RESNET.get(middle[3], middle[3])}")
    side, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    layers = config.layers_per_block if isinstance(config.layers_per_block, int) else config.layers_per_block[0]
    if kind == "downsamplers":
        return Place(f"input_blocks.{(block + 1) * (layers + 1)}.0.op")
    if kind == "upsamplers":
        attends = "CrossAttn" in config.up_block_types[block]
        return Place(f"output_blocks.{(block + 1) * (layers + 1) - 1}.{2 if attends else 1}.{rest}")
    number = (1 if side == "down_blocks" else 0) + block * (layers + 1) + layer
    inner = f"0.{RESNET.get(rest, rest)}" if kind == "resnets" else f"1.{rest}"
    return Place(f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{inner}")


def _flux(
    module: str,
    names: dict[str, str],
    double: dict[str, str],
    single: dict[str, str],
    stacked: dict[str, tuple[str, ...]],
) -> Place | None:
    """Of FLUX.1 and FLUX.2, whose single blocks have one module for what is `stacked` in FLUX.1's."""
    found = re.fullmatch(r"(single_transformer_blocks|transformer_blocks)\.(\d+)\.(.+)", module)
    if not found:
        return Place(names[module]) if module in names else None
    ours, rest = f"{found[1]}.{found[2]}", found[3]
    if found[1] == "transformer_blocks":
        return _in_block(f"double_blocks.{found[2]}", ours, rest, double, DOUBLE_STACKED)
    return _in_block(f"single_blocks.{found[2]}", ours, rest, single, stacked)


def _sd3(config: Any, module: str) -> Place | None:
    found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
    if not found:
        return Place(SD3[module]) if module in SD3 else None
    number, rest = found[1], found[2]
    if rest == "norm1_context.linear" and int(number) == config.num_layers - 1:
        return None  # diffusers has its rows in another order
    return _in_block(f"joint_blocks.{number}", f"transformer_blocks.{number}", rest, JOINT, JOINT_STACKED)


def _z_image(module: str) -> Place:
    found = re.fullmatch(r"(.+\.\d+\.attention)\.(to_[qkv]|to_out\.0)", module)
    if not found:
        return Place(re.sub(r"^all_(\w+)\.2-1", r"\1", module))
    if found[2] == "to_out.0":
        return Place(f"{found[1]}.out")
    return Place(f"{found[1]}.qkv", "qkv".index(found[2][-1]), tuple(f"{found[1]}.to_{letter}" for letter in "qkv"))


def _in_block(
    theirs: str, ours: str, rest: str, names: dict[str, str], stacked: dict[str, tuple[str, ...]]
) -> Place | None:
    """The module `rest` of a block: by its name, or as one of those stacked in one."""
    if rest in names:
        return Place(f"{theirs}.{names[rest]}")
    for name, parts in stacked.items():
        if rest in parts:
            return Place(f"{theirs}.{name}", parts.index(rest), tuple(f"{ours}.{part}" for part in parts))
    return None


def flat(prefix: str, module: str) -> str:
    return f"{prefix}_{module.replace('.', '_')}"


def adaptable(network: nn.Module) -> Iterator[str]:
    """The names of the modules that a LoRA can change."""
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2 and ".lora_" not in name:
            yield name.removesuffix(".base_layer")


def names_of_denoiser(part: str, network: nn.Module) -> dict[str, Target]:
    """Every name that a LoRA file may have for a module of a denoiser, and what it stands for."""
    names: dict[str, Target] = {}
    for module in adaptable(network):
        own = Target(part, (module,))
        processor = module.replace(".to_", ".processor.to_").removesuffix(".0")  # of diffusers before 0.20
        dotted = [module, f"{part}.{module}", f"base_model.model.{module}", f"{part}.base_model.model.{module}",
                  f"{part}.{processor}", processor, f"diffusion_model.{module}"]  # fmt: skip
        names |= dict.fromkeys([*dotted, *(flat(p, module) for p in ("lora_unet", "lycoris", "lora_transformer"))], own)
        if place := original(network, module):
            target = Target(part, place.of) if place.of else own
            theirs = [
                place.name,
                f"diffusion_model.{place.name}",
                flat("lora_unet", place.name),
                flat("lora_unet_", place.name),
            ]
            names |= {name: target for name in theirs if name not in names}
    return names


def names_of_text_encoder(part: str, network: nn.Module) -> dict[str, Target]:
    """The same of a text encoder; kohya counts them, and FLUX's T5 as the third."""
    number = int(part.removeprefix("text_encoder").removeprefix("_") or 1)
    is_clip = "CLIP" in type(network).__name__
    prefixes = [f"lora_te{number}", *(["lora_te"] if number == 1 else []), *([] if is_clip else ["lora_te3"])]
    names: dict[str, Target] = {}
    for module in adaptable(network):
        own, bare = Target(part, (module,)), module.removeprefix("text_model.")
        spelled = [f"text_model.{bare}", bare] if is_clip else [module]
        names |= dict.fromkeys([f"{part}.{name}" for name in spelled], own)
        names |= dict.fromkeys([flat(prefix, spelled[0]) for prefix in prefixes], own)
    return names
