"""Trained adapters as files for other programs.

diffusers   PART.MODULE.lora_A.weight, alpha in the metadata
comfyui     U-Net: lora_unet_MODULE.lora_down.weight and .alpha, in diffusers' names; FLUX, Stable Diffusion 3,
            Qwen-Image and Z-Image: transformer.MODULE; Wan, LTX-2: diffusion_model.NAME, in the original code's names
kohya       lora_unet_NAME.lora_down.weight and .alpha: SD 1.x and 2.x, Qwen-Image and Z-Image in diffusers' names, all
            others in the original code's, where FLUX and Stable Diffusion 3 have q, k, v (and of FLUX's single block the MLP) as one module
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from sipo.backbones.lora_names import Form, flat, original
from sipo.errors import UserError
from sipo.files import write_atomic

Pair = tuple[Tensor, Tensor]  # down (r, ...), up (out, r)
U_NET = "UNet2DConditionModel"
# By diffusers' names: what ComfyUI knows so, and kohya's musubi-tuner.
COMFYUI = (
    "FluxTransformer2DModel", "Flux2Transformer2DModel", "SD3Transformer2DModel", "QwenImageTransformer2DModel",
    "ZImageTransformer2DModel",
)  # fmt: skip
NOT_KOHYA = ("LTX2VideoTransformer3DModel",)  # whose names in kohya's scripts were not verified
KOHYA = ("QwenImageTransformer2DModel", "ZImageTransformer2DModel")


def own_form(network: nn.Module, state: dict[str, Tensor]) -> Form:
    """That of a run's own weights: what the most programs read, diffusers among them.

    Diffusers reads kohya's names of every module of a U-Net but SDXL's `add_embedding`.
    """
    is_unet = type(network).__name__.removeprefix("FSDP") == U_NET
    return "comfyui" if is_unet and not any(name.startswith("add_embedding") for name in state) else "diffusers"


def write_lora(
    path: Path, part: str, network: nn.Module, state: dict[str, Tensor], metadata: dict[str, Any], form: Form
) -> None:
    """state: peft's, MODULE.lora_A.weight (r, in) and MODULE.lora_B.weight (out, r). metadata: peft's config.

    Raises UserError for modules that have no name in that form.
    """
    pairs = {key.removesuffix(".lora_A.weight"): (state[key], state[key.replace("lora_A", "lora_B")])
             for key in state if key.endswith(".lora_A.weight")}  # fmt: skip
    if form == "diffusers":
        tensors = {f"{part}.{key}": value for key, value in state.items()}
    else:
        named = _named(network, pairs, float(metadata["lora_alpha"]), form)
        down, up = ("lora_A", "lora_B") if any("." in name for name in named) else ("lora_down", "lora_up")
        tensors = {}
        for name, ((a, b), alpha) in named.items():
            tensors |= {f"{name}.{down}.weight": a, f"{name}.{up}.weight": b, f"{name}.alpha": torch.tensor(alpha)}
    header = {"format": "pt"}
    if form == "diffusers":  # beside alphas diffusers refuses it
        header["lora_adapter_metadata"] = json.dumps(
            {f"{part}.{key}": _plain(value) for key, value in metadata.items()}, sort_keys=True
        )
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save(tensors, metadata=header))


def _named(network: nn.Module, pairs: dict[str, Pair], alpha: float, form: Form) -> dict[str, tuple[Pair, float]]:
    """By the module's name in that form: its matrices and alpha."""
    kind = type(network).__name__.removeprefix("FSDP")
    is_xl = kind == U_NET and network.config.addition_embed_type == "text_time"  # pyright: ignore[reportAttributeAccessIssue]
    if kind == U_NET and (form == "comfyui" or not is_xl):
        return {flat("lora_unet", module): (pair, alpha) for module, pair in pairs.items()}
    if form == "comfyui" and kind in COMFYUI:
        return {f"transformer.{module}": (pair, alpha) for module, pair in pairs.items()}
    if form == "kohya" and kind in KOHYA:
        return {flat("lora_unet", module): (pair, alpha) for module, pair in pairs.items()}
    is_known = form != "kohya" or kind not in NOT_KOHYA
    places = {module: original(network, module) if is_known else None for module in pairs}
    nameless = [module for module, place in places.items() if place is None]
    if nameless:
        known = "diffusers' form (--format diffusers) is what programs for this model read"
        raise UserError(
            f"{form} has no name for {len(nameless)} of the adapted modules of a {kind}, such as {nameless[0]}; {known}"
        )
    stacked: dict[str, dict[str, Pair]] = defaultdict(dict)
    for module, place in places.items():
        stacked[place.name][module] = pairs[module]  # pyright: ignore[reportOptionalMemberAccess]
    spell = (lambda name: f"diffusion_model.{name}") if form == "comfyui" else (lambda name: flat("lora_unet", name))
    found = {}
    for name, own in stacked.items():
        of = places[next(iter(own))].of  # pyright: ignore[reportOptionalMemberAccess]
        found[spell(name)] = _stack(network, of, own, alpha) if of else (next(iter(own.values())), alpha)
    return found


def _stack(network: nn.Module, modules: tuple[str, ...], pairs: dict[str, Pair], alpha: float) -> tuple[Pair, float]:
    """One pair for modules stacked by rows: downs below each other, ups along the diagonal, alpha times their number."""
    down = torch.cat([pairs[module][0] for module in modules if module in pairs])
    rank, column, rows = down.shape[0], 0, []
    for module in modules:
        layer: Any = network.get_submodule(module)
        block = down.new_zeros(layer.out_features, rank)
        if module in pairs:
            up = pairs[module][1]
            block[:, column : column + up.shape[1]] = up
            column += up.shape[1]
        rows.append(block)
    return (down, torch.cat(rows)), alpha * len(pairs)


def _plain(value: Any) -> Any:
    """As JSON: sets become lists."""
    return sorted(value) if isinstance(value, set) else value
