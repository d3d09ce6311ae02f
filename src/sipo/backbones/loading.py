"""From a path or hub id to the adapter of its family."""

from importlib import resources
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from sipo.backbones.base import Backbone
from sipo.backbones.stable_diffusion import StableDiffusion
from sipo.config import ModelConfig
from sipo.errors import UserError

# The class that a checkpoint's model_index.json names -> its adapter.
FAMILIES = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusion,
}


def resolve_path(path: str) -> str:
    """'miniature' becomes the folder shipped with the package; anything else is returned as it is."""
    return str(resources.files("sipo") / "mini" / "weights") if path == "miniature" else path


def load_backbone(
    model: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, encoders: bool = True
) -> Backbone:
    """Load a checkpoint with the adapter of its family.

    `dtype` is the compute dtype, and that of the frozen weights unless `model.dtype` says otherwise; `encoders=False`
    leaves the VAE and the text encoders on disk. Raises UserError for a path without a pipeline, an unknown family,
    or weights that do not load.
    """
    path = resolve_path(model.path)
    try:
        index = DiffusionPipeline.load_config(path, revision=model.revision)
    except (OSError, ValueError) as error:
        is_local = Path(path).exists() or path.startswith((".", "/", "~"))
        hint = (
            "the folder should hold a model_index.json" if is_local else "neither a folder here nor a hub id in reach"
        )
        raise UserError(f"model.path: {model.path!r} does not load; {hint}") from error
    family = index.get("_class_name")
    if family not in FAMILIES:
        raise UserError(f"model.path: {model.path} is a {family}; supported are {', '.join(FAMILIES)}")
    try:
        folder = path if Path(path).is_dir() else DiffusionPipeline.download(
            path, revision=model.revision, variant=model.variant, use_safetensors=True
        )  # fmt: skip
        return FAMILIES[family].load(model, Path(folder), torch.device(device), dtype, encoders)
    except (OSError, ValueError) as error:
        raise UserError(f"model: {model.path} does not load: {str(error).strip().splitlines()[0]}") from error
