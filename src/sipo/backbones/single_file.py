"""Checkpoints that are one .safetensors file, as the programs people draw with write them, read by diffusers' converters.

Such a file holds networks alone. Configs, tokenizers, and networks that it lacks (of FLUX and Wan: text encoders and VAE)
come from a folder or hub id in diffusers layout: `model.config`, or the checkpoint that diffusers takes the file for.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    CHECKPOINT_KEY_NAMES,
    DIFFUSERS_DEFAULT_PIPELINE_PATHS,
    infer_diffusers_model_type,
)
from huggingface_hub import snapshot_download

from sipo.backbones.family import Family
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.lfs import refuse_pointers
from sipo.tensors import open_tensors

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
CONFIGS = ["*.json", "*.txt", "*.model", "**/*.json", "**/*.txt", "**/*.model"]
VAE = ("first_stage_model.", "vae.")  # how the names of a VAE begin in a whole checkpoint
TEXT = ("cond_stage_model.", "conditioner.", "text_encoders.")  # and those of text encoders


def is_single_file(path: str | None) -> bool:
    """Whether a path is one file of weights. Raises UserError for a pickled one, and for a Git LFS pointer."""
    if path is None or not Path(path).is_file():
        return False
    if Path(path).suffix in PICKLED:
        raise UserError(f"{path} is pickled, which may run any code when it is read: convert it to .safetensors")
    refuse_pointers([Path(path)])
    return True


def read_shapes(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the file by its name, on the meta device. Raises UserError for a damaged file."""
    with open_tensors(path) as file:
        return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in file.keys()}  # noqa: SIM118


def holds_text_encoders(path: Path) -> bool:
    """Whether they are in the file; else they are in the folder of the configs, as those of FLUX and Wan mostly."""
    return any(name.startswith(TEXT) for name in read_shapes(path))


def config_source(model: ModelConfig) -> str:
    """Where the configs of a single file are: `model.config`, else the hub id that diffusers takes it for."""
    if model.config:
        return model.config
    try:
        shapes = read_shapes(Path(model.path))
        kind = infer_diffusers_model_type(shapes)
        if kind == "v1" and CHECKPOINT_KEY_NAMES["v1"] not in shapes:  # its answer where it knows nothing
            raise ValueError(f"{next(iter(shapes), 'no tensor')} is no name of Stable Diffusion 1.x")
        return DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"model.path: diffusers cannot tell what {model.path} is ({error}). {advice(model)}") from error


def advice(model: ModelConfig) -> str:
    return (
        f"{model.path} is one file of weights; its configs and tokenizers, and the parts that it lacks, come from "
        "model.config: a folder in diffusers layout, which may be without weights of the parts in the file "
        "(`hf download ID --include '*.json' '*.txt' '*.model' --local-dir FOLDER`). Where diffusers converts the file "
        "by from_single_file, save_pretrained writes a folder that needs no model.config"
    )


def config_folder(model: ModelConfig) -> Path:
    """The folder of `config_source` on this machine. Raises UserError where the hub is out of reach."""
    source = config_source(model)
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(
            snapshot_download(source, revision=model.revision if model.config else None, allow_patterns=CONFIGS)
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.path: the configs and tokenizers of {source} are out of reach. {advice(model)}"
        ) from error


def load_parts(
    path: Path, configs: Path, family: Family, wanted: list[str], frozen: torch.dtype, vae_dtype: torch.dtype
) -> dict[str, Any]:
    """Of the `wanted` parts of a pipeline, those that the file holds. Raises UserError where it lacks the denoiser.

    Text encoders are left to the pipeline's own from_single_file, if it has one.
    """
    if family.extras:
        raise UserError(
            f"model.path: {path} is one file; a {family.name}, which has {', '.join(family.extras)} as well, is read from a folder"
        )
    shapes = read_shapes(path)
    parts: dict[str, Any] = {}
    for part, cls in {**family.denoisers, "vae": family.vae}.items():
        if part not in wanted or (part == "vae" and not any(name.startswith(VAE) for name in shapes)):
            continue
        load = getattr(cls, "from_single_file", None)
        if len(family.denoisers) > 1:
            raise UserError(
                f"model.path: {path} is one file; a {family.name} of {' and '.join(family.denoisers)} is read from a folder"
            )
        if load is None:
            raise UserError(f"model.path: diffusers reads no single file of a {cls.__name__}: use a folder. {path}")
        dtype = vae_dtype if part == "vae" else frozen
        parts[part] = load(str(path), config=str(configs), subfolder=part, dtype=dtype, local_files_only=True)
        empty = [name for name, weight in parts[part].named_parameters() if weight.is_meta]
        if empty:
            raise UserError(
                f"model.path: {path} lacks {len(empty)} of the {part}'s weights, such as {empty[0]}: it is not from_single_file's "
                f"{family.name}, or of another size than {configs}"
            )
    return parts
