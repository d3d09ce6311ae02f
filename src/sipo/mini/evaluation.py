"""How good the miniature is: GenEval's overall score on prompts of its world."""

import numpy as np
from diffusers import StableDiffusionPipeline

from sipo.geneval.vocabulary import CATEGORIES
from sipo.mini.pipeline import sample
from sipo.mini.score import MiniatureScorer


def category_scores(pipeline: StableDiffusionPipeline, prompts: list[dict], autocast: bool = False) -> dict[str, float]:
    """Share of right pictures per category, `overall` (the mean of the categories), and mean `cleanliness`.

    One picture per prompt (GenEval's metadata with "prompt" and "tag"), with the seeds 0, 1, 2, ...
    """
    texts = [prompt["prompt"] for prompt in prompts]
    images = sample(pipeline, texts, list(range(len(prompts))), autocast=autocast)
    details = MiniatureScorer().details(images, texts, prompts)
    by_category = {
        category: [float(d["correct"]) for d, prompt in zip(details, prompts, strict=True) if prompt["tag"] == category]
        for category in CATEGORIES
    }
    means = {category: float(np.mean(values)) for category, values in by_category.items() if values}
    scores = {"overall": float(np.mean(list(means.values())))} | means
    scores["cleanliness"] = float(np.mean([d["cleanliness"] for d in details]))
    return {name: round(value, 4) for name, value in scores.items()}
