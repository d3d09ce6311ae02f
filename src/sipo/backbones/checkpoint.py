"""A checkpoint's files: a pipeline of which some components stay on disk, what identifies them, and writing it again."""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.loaders.single_file_utils import SingleFileComponentError
from torch import Tensor, nn

from sipo.backbones.architecture import Architecture
from sipo.backbones.denoisers import by_part, prefix_of
from sipo.backbones.family import Family
from sipo.backbones.precision import outside_autocast
from sipo.backbones.single_file import holds_text_encoders, is_single_file, load_parts
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.files import hash_file, hash_files
from sipo.lfs import refuse_pointers
from sipo.tensors import load_tensors

VARIANT = re.compile(r"\.([A-Za-z0-9]+?)(-[0-9]+-of-[0-9]+)?\.safetensors$")  # model.fp16.safetensors


def load_pipeline(
    architecture: Architecture, folder: Path, dtype: torch.dtype, given: dict[str, Any]
) -> DiffusionPipeline:
    """The pipeline in `folder` with the `given` components (None: left on disk), of those that its index names.

    Of a checkpoint that is one file, `folder` has the configs, and what the file lacks.

    `model.dtype`, else `dtype`, is that of every component but the VAE, which may have one of its own. Raises UserError
    that names the components without a folder.
    """
    model, family = architecture.model, architecture.family
    index = architecture.configs["model_index"]
    parts = {name: part for name, part in (dict.fromkeys(family.unused) | given).items() if name in index}
    wanted = [name for name, entry in index.items() if isinstance(entry, list) and entry[1] and name not in parts]
    file = Path(model.path) if is_single_file(model.path) else None
    missing = [name for name in wanted if not (folder / name).is_dir() and not (name == "vae" and model.vae)]
    if missing:
        raise UserError(f"model.path: {model.path} lacks {', '.join(missing)}, which its model_index.json names")
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    refuse_pointers(path for name in wanted for path in (folder / name).glob("*"))
    frozen, variant = model.frozen_dtype(dtype), variant_of(folder, wanted, model)
    if file:
        of_file = [name for name in wanted if not (name == "vae" and model.vae)]
        parts |= load_parts(file, folder, family, of_file, frozen, architecture.vae_dtype(frozen))
    if "vae" not in parts:
        parts["vae"] = _load_vae(architecture, folder, frozen, variant)
    _prepare_vae(family, parts["vae"])
    reads_files = getattr(family.pipeline, "from_single_file", None) if file and holds_text_encoders(file) else None
    if file and reads_files:
        pipeline = reads_files(str(file), config=str(folder), dtype=frozen, local_files_only=True, **parts)
    else:
        pipeline = family.pipeline.from_pretrained(folder, variant=variant, dtype=frozen, use_safetensors=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    for name in {*family.text_encoders, *family.extras} - given.keys():
        outside_autocast(getattr(pipeline, name), "forward")
    return pipeline


def variant_of(folder: Path, parts: list[str], model: ModelConfig) -> str | None:
    """`model.variant`; else, of a folder that has its weights in one variant alone (files *.fp16.safetensors), that one."""
    if model.variant:
        return model.variant
    files = [file.name for part in parts for file in (folder / part).glob("*.safetensors")]
    variants = {match[1] if (match := VARIANT.search(name)) else None for name in files}
    return variants.pop() if len(variants) == 1 else None


def _load_vae(architecture: Architecture, folder: Path, frozen: torch.dtype, variant: str | None) -> nn.Module:
    """`model.vae`, one file too, with the config of the checkpoint's own VAE then; or the checkpoint's own."""
    model, cls, dtype = architecture.model, architecture.family.vae, architecture.vae_dtype(frozen)
    if is_single_file(model.vae):
        try:
            return cls.from_single_file(
                model.vae, config=str(folder), subfolder="vae", dtype=dtype, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SingleFileComponentError) as error:
            detail = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"model.vae: the single file {model.vae} does not load as a {cls.__name__}: {detail}"
            ) from error
    if model.vae:
        return cls.from_pretrained(model.vae, dtype=dtype)
    return cls.from_pretrained(folder, subfolder="vae", variant=variant, dtype=dtype)


def _prepare_vae(family: Family, vae: Any) -> None:
    if vae is not None and family.tiled_vae:
        vae.enable_slicing()
        if tiles_join(vae):
            vae.enable_tiling()
    if vae is not None:
        outside_autocast(vae, "decode")


def tiles_join(vae: Any) -> bool:
    """Whether tiles that state a share of overlap (CogVideoX) advance by whole latents.

    Where they do not, as in a small VAE, what diffusers encodes or decodes in tiles has seams, and most often another size
    than untiled (`AutoencoderKLCogVideoX.tiled_encode`). Other VAEs state the strides of their tiles.
    """
    for side in ("height", "width"):
        overlap = getattr(vae, f"tile_overlap_factor_{side}", None)
        if overlap is None:
            continue
        pixels, latents = getattr(vae, f"tile_sample_min_{side}"), getattr(vae, f"tile_latent_min_{side}")
        kept = latents - int(latents * overlap)
        if int(pixels * (1 - overlap)) * latents != kept * pixels:
            return False
    return True


def fingerprint(family: Family, model: ModelConfig, folder: Path, dtype: torch.dtype) -> dict[str, str]:
    """Hashes of the files of the VAE, the tokenizers and the text encoders, and how these are used: what a cache depends on."""
    found = {name: _hash_folder(folder / name) for name in family.encoders if (folder / name).is_dir()}
    if is_single_file(model.path):
        found["file"] = hash_file(Path(model.path))
    if model.vae:
        path = Path(model.vae)
        found["vae"] = _hash_folder(path) if path.is_dir() else hash_file(path) if path.is_file() else model.vae
    windows = {"caption windows": str(model.caption_windows)} if model.caption_windows > 1 else {}
    return {**found, **windows, "dtype": str(model.frozen_dtype(dtype)).removeprefix("torch.")}


def save_full(
    pipeline: DiffusionPipeline, family: Family, denoiser: nn.Module, folder: Path, weights: dict[str, Tensor]
) -> None:
    """The whole pipeline for `DiffusionPipeline.from_pretrained`, its denoisers with these weights.

    They are put into networks of the pipeline's own classes: ours may be sharded, which changes their class. Weights that do not
    train get the dtype of those that do.
    """
    ours, plain = {}, {}
    for part, network, own in by_part(denoiser, family.denoisers, weights):
        ours[part] = network
        with torch.device("meta"):
            plain[part] = family.denoisers[part].from_config(network.config)
        dtypes = {weight.dtype for name, weight in own.items() if family.trains(name)}
        whole = {**network.state_dict(), **own}
        if len(dtypes) == 1:
            whole = {name: w.to(*dtypes) if w.is_floating_point() else w for name, w in whole.items()}
        plain[part].load_state_dict(whole, assign=True)
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
            found |= {prefix_of(denoiser, part) + name: weight for name, weight in load_tensors(file).items()}
    return found


def _hash_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".txt", ".model"))
    return hash_files(files, with_names=True)
