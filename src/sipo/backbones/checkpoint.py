"""A checkpoint's files: a pipeline of which some components stay on disk, what identifies them, and writing it again."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sipo.backbones.architecture import Architecture
from sipo.backbones.denoisers import by_part, prefix_of
from sipo.backbones.family import Family
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.files import hash_files


def load_pipeline(
    architecture: Architecture, folder: Path, dtype: torch.dtype, given: dict[str, Any]
) -> DiffusionPipeline:
    """The pipeline in `folder` with the `given` components (None: left on disk), of those that its index names.

    `model.dtype`, else `dtype`, is that of every component but the VAE, which may have one of its own. Raises UserError
    that names the components without a folder.
    """
    model, family = architecture.model, architecture.family
    index = architecture.configs["model_index"]
    parts = {name: part for name, part in (dict.fromkeys(family.UNUSED) | given).items() if name in index}
    wanted = [name for name, entry in index.items() if isinstance(entry, list) and entry[1] and name not in parts]
    missing = [name for name in wanted if not (folder / name).is_dir() and not (name == "vae" and model.vae)]
    if missing:
        raise UserError(f"model.path: {model.path} lacks {', '.join(missing)}, which its model_index.json names")
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    frozen = model.frozen_dtype(dtype)
    if "vae" not in parts:
        parts["vae"] = _load_vae(architecture, folder, frozen)
    pipeline = family.pipeline.from_pretrained(
        folder, variant=model.variant, dtype=frozen, use_safetensors=True, **parts
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load_vae(architecture: Architecture, folder: Path, frozen: torch.dtype) -> nn.Module:
    model, family = architecture.model, architecture.family
    source, subfolder = (model.vae, None) if model.vae else (folder, "vae")
    variant = None if model.vae else model.variant
    vae = family.vae.from_pretrained(source, subfolder=subfolder, variant=variant, dtype=architecture.vae_dtype(frozen))
    if family.tiled_vae:
        vae.enable_slicing()
        vae.enable_tiling()
    return vae


def fingerprint(family: Family, model: ModelConfig, folder: Path, dtype: torch.dtype) -> dict[str, str]:
    """Hashes of the files of the VAE, the tokenizers and the text encoders: what a cache depends on."""
    found = {name: _hash_folder(folder / name) for name in family.encoders if (folder / name).is_dir()}
    if model.vae:
        found["vae"] = _hash_folder(Path(model.vae)) if Path(model.vae).is_dir() else model.vae
    return {**found, "dtype": str(model.frozen_dtype(dtype)).removeprefix("torch.")}


def save_full(
    pipeline: DiffusionPipeline, family: Family, denoiser: nn.Module, folder: Path, weights: dict[str, Tensor]
) -> None:
    """The whole pipeline for `DiffusionPipeline.from_pretrained`, its denoisers with these weights.

    They are put into networks of the pipeline's own classes: ours may be sharded, which changes their class.
    """
    ours, plain = {}, {}
    for part, network, own in by_part(denoiser, family.denoisers, weights):
        ours[part] = network
        with torch.device("meta"):
            plain[part] = family.denoisers[part].from_config(network.config)
        plain[part].load_state_dict({**network.state_dict(), **own}, assign=True)
    pipeline.register_modules(**plain)
    try:
        pipeline.save_pretrained(folder, safe_serialization=True)
    finally:
        pipeline.register_modules(**ours)


def read_full(family: Family, denoiser: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The denoisers' weights in a pipeline that `save_full` wrote, by their names in the denoiser. Raises UserError."""
    found = {}
    for part in family.denoisers:
        files = sorted((folder / part).glob("*.safetensors"))
        if not files:
            raise UserError(
                f"{folder} holds no weights of the {part}; expected the pipeline that a run of kind full wrote"
            )
        for file in files:
            try:
                found |= {prefix_of(denoiser, part) + name: weight for name, weight in load_file(file).items()}
            except SafetensorError as error:
                raise UserError(f"{file} is truncated or damaged ({error})") from error
    return found


def _hash_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".txt", ".model"))
    return hash_files(files, with_names=True)
