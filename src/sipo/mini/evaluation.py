"""How good a miniature is: the share of right media by category of its prompts."""

import tempfile

import numpy as np
import torch
from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

from sipo.backbones.opening import open_for_sampling
from sipo.registry import Miniature, import_object
from sipo.samples.sources import SourceSampler


def category_scores(
    miniature: Miniature, pipeline: DiffusionPipeline, prompts: list[dict], autocast: bool = False
) -> dict[str, float]:
    """Share of right media per category, `overall` (the mean of the shares, GenEval's score), and mean `cleanliness`.

    One medium per prompt (metadata with "prompt" and "tag"; every category must occur), with the seeds 0, 1, 2, ...;
    `autocast` computes in bfloat16.
    """
    with tempfile.TemporaryDirectory(prefix="sipo-miniature-") as folder:
        pipeline.save_pretrained(folder)
        sampler = open_for_sampling(folder, False, miniature.num_inference_steps, miniature.guidance_scale).sampler
        assert not isinstance(sampler, SourceSampler)  # no miniature's media have a source
    texts, media = [entry["prompt"] for entry in prompts], []
    with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=autocast):
        for start in range(0, len(texts), 32):
            batch = texts[start : start + 32]
            media += sampler(batch, list(range(start, start + len(batch))))
    details = import_object(miniature.scorer)().details(media, texts, prompts)
    correct = {
        tag: [found["correct"] for entry, found in zip(prompts, details, strict=True) if entry["tag"] == tag]
        for tag in miniature.categories
    }
    shares = {tag: float(np.mean(found)) for tag, found in correct.items()}
    cleanliness = float(np.mean([found["cleanliness"] for found in details]))
    scores = {"overall": float(np.mean(list(shares.values()))), **shares, "cleanliness": cleanliness}
    return {name: round(value, 4) for name, value in scores.items()}
