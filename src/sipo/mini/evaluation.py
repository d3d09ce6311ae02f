"""How good a miniature is: GenEval's overall score on prompts of its world."""

import tempfile

import numpy as np
import torch
from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

from sipo.backbones.opening import open_for_sampling
from sipo.geneval.results import summarise
from sipo.mini import STILL
from sipo.mini.score import MiniatureScorer
from sipo.progress import track_batches


def category_scores(pipeline: StableDiffusionPipeline, prompts: list[dict], autocast: bool = False) -> dict[str, float]:
    """Share of right pictures per category, `overall` (the mean of all six), and mean `cleanliness`.

    One picture per prompt (GenEval's metadata with "prompt" and "tag"; every category must occur), with the seeds 0, 1,
    2, ...; `autocast` computes in bfloat16.
    """
    with tempfile.TemporaryDirectory(prefix="sipo-miniature-") as folder:
        pipeline.save_pretrained(folder)
        sampler = open_for_sampling(folder, False, STILL.num_inference_steps, STILL.guidance_scale).sampler
    texts, images = [entry["prompt"] for entry in prompts], []
    with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=autocast):
        for seeds in track_batches(range(len(texts)), 32, None, "", len(texts)):
            images += sampler([texts[seed] for seed in seeds], list(seeds))
    details = MiniatureScorer().details(images, texts, prompts)
    records = [
        {"tag": entry["tag"], "correct": found["correct"], "metadata": entry["prompt"]}
        for entry, found in zip(prompts, details, strict=True)
    ]
    summary = summarise(records, {})
    shares = {tag: category["score"] for tag, category in summary["categories"].items()}
    cleanliness = float(np.mean([found["cleanliness"] for found in details]))
    scores = {"overall": summary["overall"], **shares, "cleanliness": cleanliness}
    return {name: round(value, 4) for name, value in scores.items()}
