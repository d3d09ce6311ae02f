"""Plain diffusers: every family's own pipeline called for the same prompts, seeds, size and guidance as ours."""

from typing import Any

import torch
from diffusers import ClassifierFreeGuidance, DiffusionPipeline


def load_lora(pipeline: Any, folder: Any) -> None:
    """A folder's LoRA, as diffusers loads it for this pipeline; HunyuanVideo-1.5's leaves it to the network."""
    if type(pipeline).__name__ == "HunyuanVideo15Pipeline":
        pipeline.transformer.load_lora_adapter(folder, use_safetensors=True)
    else:
        pipeline.load_lora_weights(folder)


def call(pipeline: DiffusionPipeline, prompts: list[str], size: Any, guidance: float, steps: int, **keys: Any) -> Any:
    """What the pipeline makes (media, or what `output_type` says). size: a `Size`; seeds: those of its videos or pictures."""
    pipeline.set_progress_bar_config(disable=True)
    if "seeds" in keys:
        keys["generator"] = [torch.Generator().manual_seed(seed) for seed in keys.pop("seeds")]
    if size.is_video:
        keys = {"num_frames": size.num_frames, "output_type": "pil", **keys}
    if "max_text_seq_length" in pipeline.transformer.config:  # CogVideoX's tiny text encoder
        keys["max_sequence_length"] = pipeline.transformer.config.max_text_seq_length
    if type(pipeline).__name__ == "QwenImagePipeline":
        keys |= {"true_cfg_scale": guidance, "negative_prompt": [" "] * len(prompts) if guidance > 1 else None}
    elif type(pipeline).__name__ == "HunyuanVideo15Pipeline":
        pipeline.guider = ClassifierFreeGuidance(guidance_scale=guidance)
        pipeline.vae.enable_slicing()  # its mask of attention is of one video's shape
    elif type(pipeline).__name__ == "LTX2Pipeline":
        return alone(pipeline, list(prompts), size, guidance, steps, keys)
    else:  # Z-Image's pipeline counts from 0
        keys["guidance_scale"] = guidance - 1 if type(pipeline).__name__ == "ZImagePipeline" else guidance
    return pipeline(prompt=list(prompts), height=size.height, width=size.width, num_inference_steps=steps, **keys)[0]


def alone(pipeline: Any, prompts: list[str], size: Any, guidance: float, steps: int, keys: dict[str, Any]) -> Any:
    """LTX-2's video by itself: the network's own argument for it, and of the pipeline's guidances the one by the prompt."""
    own = pipeline.transformer.forward
    pipeline.transformer.forward = lambda **given: own(**{**given, "isolate_modalities": True})
    try:
        return pipeline(
            prompt=prompts, height=size.height, width=size.width, num_inference_steps=steps, frame_rate=size.fps,
            guidance_scale=guidance, stg_scale=0, modality_scale=1, guidance_rescale=0, audio_guidance_scale=0,
            audio_stg_scale=0, audio_modality_scale=0, audio_guidance_rescale=0, **keys,
        )[0]  # fmt: skip
    finally:
        pipeline.transformer.forward = own
