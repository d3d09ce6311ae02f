"""From a path or hub id to the backbone of its family."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from sipo.backbones.adapter import Adapter
from sipo.backbones.backbone import Backbone
from sipo.backbones.cogvideox import CogVideoX
from sipo.backbones.flux import Flux
from sipo.backbones.meta import read_architecture
from sipo.backbones.parts import Parts
from sipo.backbones.paths import resolve_path
from sipo.backbones.stable_diffusion import StableDiffusion
from sipo.backbones.wan import Wan
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.size import Size

# The class that a checkpoint's model_index.json names -> its adapter.
FAMILIES: dict[str, type[Adapter]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusion,
    "FluxPipeline": Flux,
    "CogVideoXPipeline": CogVideoX,
    "WanPipeline": Wan,
}


def load_backbone(
    model: ModelConfig,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    encoders: bool = True,
    size: Callable[[Size], Size] = lambda own: own,
) -> Backbone:
    """Load a checkpoint with the adapter of its family.

    dtype: of computing, and of the frozen weights unless `model.dtype` says otherwise. encoders: False leaves the VAE
    and the text encoders on disk. size: from the checkpoint's own size to the one wanted, such as `DataConfig.size`.

    Raises UserError for a path without a pipeline, an unknown family, missing components, weights that do not load, a
    LoRA of another model, or a size that the network cannot take.
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
    name = index.get("_class_name")
    if name not in FAMILIES:
        raise UserError(f"model.path: {model.path} is a {name}; supported are {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    try:
        folder = path if Path(path).is_dir() else DiffusionPipeline.download(
            path, revision=model.revision, variant=model.variant, use_safetensors=True
        )  # fmt: skip
        # Before the weights, of which diffusers would say less: whether the parts are those of the family.
        architecture = read_architecture(replace(model, path=str(folder), revision=None))
        parts = Parts(model, Path(folder), dtype, family.layout, encoders)
        adapter = family(parts)
    except SafetensorError as error:
        raise UserError(
            f"model: {model.path} does not load: a file of weights is cut short or damaged ({error})"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        # diffusers raises any of these for a component of another class, or weights of other shapes
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model: {model.path} does not load as a {name}: {detail}") from error
    wanted = size(architecture.own_size)
    adapter.require(wanted)
    parts.freeze(torch.device(device))
    return Backbone(parts, adapter, wanted, adapter.schedule(wanted))
