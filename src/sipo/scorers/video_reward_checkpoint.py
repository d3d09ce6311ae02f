"""VideoReward's files: what it was trained with (model_config.json), and its weights, in which LoRA lies beside the base."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sipo.errors import UserError, shown
from sipo.files import expand_home
from sipo.jsonl import read_object
from sipo.scorers.weights import find_file, is_local, require_there

CONFIG, MODEL = "model_config.json", "model.pth"
PUBLISHED = "checkpoint-11352"  # the folder of the weights in the authors' repository on the hub
DIMENSIONS = ("VQ", "MQ", "TA")  # visual quality, motion quality, text alignment
PEFT = "base_model.model."
LORA = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")


@dataclass(frozen=True)
class Recipe:
    """How the checkpoint sees a video and what its numbers mean.

    fps, num_frames: frames to the second, or frames in all where that is not None. max_pixels: of a frame. lora_scale:
    alpha / r. norms: mean and deviation of each of `DIMENSIONS`; (0, 1) where the checkpoint names none.
    """

    fps: float
    num_frames: int | None
    max_pixels: int
    lora_scale: float
    norms: tuple[tuple[float, float], ...]


def find_checkpoint(weights: str) -> tuple[Path, Path]:
    """(model_config.json, model.pth). weights: a hub id, the folder of both, its newest checkpoint-N, or the model.pth.

    Raises UserError where one of them is missing.
    """
    path = Path(expand_home(weights))
    require_there(weights)
    if not is_local(weights):
        return find_file(weights, CONFIG), find_file(weights, f"{PUBLISHED}/{MODEL}")
    if path.is_file():
        return _config_of(path.parent), find_file(weights)
    steps = [each for each in path.glob("checkpoint-*") if re.fullmatch(r"checkpoint-[0-9]+", each.name)]
    folder = max(steps, key=lambda each: int(each.name.partition("-")[2]), default=path)
    if not (folder / MODEL).is_file() and (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"weights: {folder} holds adapters alone; expected {MODEL}, the whole model (save_full_model)")
    return _config_of(folder), find_file(str(folder), MODEL)


def _config_of(folder: Path) -> Path:
    """Beside the weights, or one folder above them, where VideoAlign writes it."""
    for place in (folder, folder.resolve().parent):
        if (place / CONFIG).is_file():
            return place / CONFIG
    raise UserError(f"weights: neither {folder} nor the folder above it holds {CONFIG}")


def read_recipe(path: Path) -> Recipe:
    """Raises UserError for a checkpoint that is asked something else than VideoReward, or whose numbers are none."""
    content = read_object(path, ("data_config", "model_config", "peft_lora_config"))
    data, model, lora = (_section(content, key, path) for key in ("data_config", "model_config", "peft_lora_config"))
    for section, key, expected in (
        (data, "prompt_template_type", "detailed_special"), (data, "sample_type", "uniform"),
        (model, "use_special_tokens", True),
    ):  # fmt: skip
        if section.get(key, expected) != expected:
            raise UserError(f"{path}: {key} is {shown(section[key])}; this scorer knows {expected!r} alone")
    rank, alpha = _number(lora, "lora_r", path), _number(lora, "lora_alpha", path)
    frames = data.get("num_frames")
    norms = content.get("inference_config")
    return Recipe(
        fps=_number(data, "fps", path),
        num_frames=None if frames is None else int(_number(data, "num_frames", path)),
        max_pixels=int(_number(data, "max_frame_pixels", path)),
        lora_scale=alpha / (math.sqrt(rank) if lora.get("use_rslora") else rank),
        norms=((0.0, 1.0),) * 3 if norms is None else _norms(_section(content, "inference_config", path), path),
    )


def _norms(section: dict, path: Path) -> tuple[tuple[float, float], ...]:
    return tuple((_number(section, f"{d}_mean", path, False), _number(section, f"{d}_std", path)) for d in DIMENSIONS)


def _section(content: dict, key: str, path: Path) -> dict[str, Any]:
    if not isinstance(content[key], dict):
        raise UserError(f"{path}: {key} is {shown(content[key])}; expected an object")
    return content[key]


def _number(section: dict, key: str, path: Path, positive: bool = True) -> float:
    value = section.get(key)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) < 1e9
        or (positive and value <= 0)
    ):
        raise UserError(f"{path}: {key} is {shown(value)}; expected a {'positive ' if positive else ''}number")
    return float(value)


def merge_lora(tensors: dict[str, Tensor], scale: float, dtype: torch.dtype, what: str) -> dict[str, Tensor]:
    """A model's state dict out of that of peft's wrapper around it: W + scale B A, computed in float32, then in `dtype`.

    peft names the parts MODULE.base_layer.weight, MODULE.lora_A.default.weight (r, in) and MODULE.lora_B.default.weight
    (out, r). Names without them stay. Raises UserError for a part without its counterpart, and for other adapters.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(PEFT)
        if match := LORA.fullmatch(name):
            parts.setdefault(match[1], {})[match[2]] = tensor
        elif ".lora_" in name or ".modules_to_save." in name:
            raise UserError(f"weights: {what} holds {name}; of adapters LoRA on linear layers alone is read")
        else:
            found[name.replace(".base_layer.", ".")] = tensor
    for module, pair in parts.items():
        base = found.get(f"{module}.weight")
        if base is None or pair.keys() != {"A", "B"}:
            raise UserError(f"weights: {what} lacks a part of {module}: its weight, lora_A or lora_B")
        try:
            update = torch.mm(pair["B"].float(), pair["A"].float()).mul_(scale).reshape(base.shape)
        except RuntimeError as error:
            raise UserError(f"weights: {what}, {module}: lora_A and lora_B do not fit its weight ({error})") from None
        found[f"{module}.weight"] = (base.float() + update).to(dtype)
    return found
