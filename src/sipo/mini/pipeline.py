"""The miniature as a StableDiffusionPipeline: put together, written, loaded, sampled."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from torch import nn

from sipo.mini.networks import make_scheduler
from sipo.mini.tokenizer import make_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
NUM_INFERENCE_STEPS = 20
GUIDANCE_SCALE = 4.0


def assemble(vae: AutoencoderKL, unet: nn.Module, text_encoder: nn.Module) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=make_tokenizer(),
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_pipeline(folder: Path = WEIGHTS) -> StableDiffusionPipeline:
    """The shipped miniature, or one that was built into `folder`, in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.float()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def sample(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    seeds: list[int],
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    batch_size: int = 32,
    autocast: bool = False,
) -> list[Image.Image]:
    """One picture per prompt; the noise of each depends on its own seed alone. `autocast` computes in bfloat16."""
    images = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=autocast):
            out = pipeline(
                prompts[part],
                generator=generators,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
            )
        images += out.images
    return images
