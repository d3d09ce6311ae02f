"""The miniature as a StableDiffusionPipeline: assembled, or loaded."""

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from sipo.mini import STILL
from sipo.mini.networks import Autoencoder, make_scheduler
from sipo.mini.tokenizer import make_tokenizer

WEIGHTS = STILL.weights


def assemble(vae: Autoencoder, networks: nn.ModuleDict) -> StableDiffusionPipeline:
    parts: dict[str, Any] = {
        "vae": vae,
        "text_encoder": networks["text_encoder"],
        "tokenizer": make_tokenizer(),
        "unet": networks["unet"],
        "scheduler": make_scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_pipeline(folder: Path = WEIGHTS) -> StableDiffusionPipeline:
    """The shipped miniature, or one that was built into `folder`, in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.float()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
