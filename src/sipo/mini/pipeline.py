"""The miniature as a StableDiffusionPipeline: assembled, or loaded."""

from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from sipo.mini import STILL
from sipo.mini.networks import make_scheduler
from sipo.mini.tokenizer import make_tokenizer

WEIGHTS = STILL.weights
NUM_INFERENCE_STEPS, GUIDANCE_SCALE = STILL.num_inference_steps, STILL.guidance_scale


def assemble(vae: AutoencoderKL, unet: nn.Module, text_encoder: nn.Module) -> StableDiffusionPipeline:
    parts: dict[str, Any] = {
        "vae": vae,
        "text_encoder": text_encoder,
        "tokenizer": make_tokenizer(),
        "unet": unet,
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
