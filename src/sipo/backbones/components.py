"""Loading a pipeline of which some components are given, or left on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from sipo.config import ModelConfig
from sipo.errors import UserError

ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


@dataclass(frozen=True)
class Layout:
    """What loading must know of a family: the component that is trained, and how its VAE wants to be run."""

    denoiser: str  # "unet" or "transformer"
    vae_dtype: torch.dtype | None = None  # None: as the other components
    tiled_vae: bool = False  # videos are encoded and decoded in slices and, above the VAE's own size, in tiles


def load_pipeline(
    model: ModelConfig, folder: Path, dtype: torch.dtype, layout: Layout, given: dict[str, Any]
) -> DiffusionPipeline:
    """The pipeline in `folder` with the `given` components (None: left on disk), of those that its index names.

    `model.dtype`, else `dtype`, is that of every component but the VAE, which may have one of its own. Raises UserError
    that names the components without a folder.
    """
    index = DiffusionPipeline.load_config(folder)
    parts = {name: part for name, part in (dict.fromkeys(UNUSED) | given).items() if name in index}
    wanted = [name for name, entry in index.items() if isinstance(entry, list) and entry[1] and name not in parts]
    missing = [name for name in wanted if not (folder / name).is_dir() and not (name == "vae" and model.vae)]
    if missing:
        raise UserError(f"model.path: {model.path} lacks {', '.join(missing)}, which its model_index.json names")
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    frozen = getattr(torch, model.dtype) if model.dtype else dtype
    if "vae" not in parts:
        parts["vae"] = _load_vae(getattr(diffusers, index["vae"][1]), model, folder, frozen, layout)
    pipeline = DiffusionPipeline.from_pretrained(
        folder, variant=model.variant, dtype=frozen, use_safetensors=True, **parts
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load_vae(cls, model: ModelConfig, folder: Path, frozen: torch.dtype, layout: Layout):
    source, subfolder = (model.vae, None) if model.vae else (folder, "vae")
    # The VAE of SDXL says itself that half precision overflows it.
    upcast = cls.load_config(source, subfolder=subfolder).get("force_upcast") and frozen == torch.float16
    dtype = torch.float32 if upcast else layout.vae_dtype or frozen
    variant = None if model.vae else model.variant
    vae = cls.from_pretrained(source, subfolder=subfolder, variant=variant, dtype=dtype)
    if layout.tiled_vae:
        vae.enable_slicing()
        vae.enable_tiling()
    return vae
