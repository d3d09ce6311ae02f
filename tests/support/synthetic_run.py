"""A run directory in full, from real files, without training anything: what the reports and their tests read."""

import json
import math
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw

from sipo.data.pairs.report import CheckReport, Problem
from sipo.evaluate.compare.contest import contest
from sipo.evaluate.compare.files import write_contest
from sipo.evaluate.compare.matches import Side
from sipo.evaluate.scores.files import read_scores
from sipo.evaluate.scores.score import score
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate

COLOURS = {"red": (214, 60, 50), "green": (52, 160, 84), "blue": (48, 100, 200), "yellow": (236, 196, 56),
           "purple": (130, 70, 170), "orange": (240, 140, 40)}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
TAGS = ("single_object", "counting", "colors")
DATA = CheckReport("pick-a-pic", 1000, "drop", (
    Problem(3, "train.parquet:3", "tie", "label_0 is 0.5"),
    Problem(41, "train.parquet:41", "truncated", "jpg_1: image file is truncated"),
), "0123abcd")  # fmt: skip
CONFIG = {
    "run": "runs/demo",
    "model": {"path": "miniature", "revision": None},
    "data": {"path": "miniature", "ties": "drop", "validation": 0.1},
    "loss": {"name": "sipo", "beta": 1.0, "clip_range": 0.1, "prune_threshold": 0.9},
    "kernel": {"name": "ddim", "num_inference_steps": 50, "eta": 1.0},
    "policy": {"kind": "lora", "rank": 16, "alpha": 16.0},
    "train": {"num_steps": 600, "batch_size": 16, "learning_rate": 1e-4, "betas": [0.9, 0.999], "seed": 0},
}


def draw(colour: str, shape: str, seed: int, noise: float, size: int = 64) -> Image.Image:
    """A coloured shape on a pale background under noise of standard deviation `noise` (of 255)."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(200, 245, 3)))
    x, y = rng.uniform(0.3, 0.7, 2) * size
    r = size * 0.22
    pen, box = ImageDraw.Draw(image), (x - r, y - r, x + r, y + r)
    if shape == "circle":
        pen.ellipse(box, COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, COLOURS[colour])
    else:
        pen.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], COLOURS[colour])
    pixels = np.asarray(image, dtype=np.float64) + rng.normal(0, noise, (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def prompt_items(count: int) -> list[PromptItem]:
    """`count` prompts of coloured shapes, each another, with a tag for the categories."""
    pairs = [(c, s) for c in COLOURS for s in SHAPES]
    return [
        PromptItem(
            f"a {pairs[i % len(pairs)][0]} {pairs[i % len(pairs)][1]}, number {i}", 100 + i, {"tag": TAGS[i % 3]}
        )
        for i in range(count)
    ]


def sampler(noise: float, wrong: float, size: int = 64):
    """A model that draws what the prompt says, with noise, and in a share `wrong` of the cases another colour."""

    def sample(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        images = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            colour, shape = prompt.split(",")[0].split()[1:3]
            rng = np.random.default_rng([seed, int(1000 * noise)])
            if rng.random() < wrong:
                colour = list(COLOURS)[(list(COLOURS).index(colour) + 1) % len(COLOURS)]
            images.append(draw(colour, shape, seed, noise * rng.uniform(0.5, 1.5), size))
        return images

    return sample


class ColourScorer:
    """1 where the most saturated pixels have the prompt's colour, plus a little for smoothness."""

    name = "colour"

    def details(self, images, prompts, metadata=None):
        found = []
        for image, prompt in zip(images, prompts, strict=True):
            pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
            flat = pixels.reshape(-1, 3)
            strong = flat[np.argsort(np.ptp(flat, axis=1))[-200:]].mean(0)
            nearest = min(COLOURS, key=lambda c: math.dist(COLOURS[c], strong))
            correct = nearest == prompt.split()[1]
            clean = float(1 / (1 + np.abs(np.diff(pixels, axis=1)).mean() / 20))
            reasons = [] if correct else [f"expected {prompt.split()[1]}, found {nearest}"]
            found.append({"score": correct + 0.2 * clean, "correct": correct, "cleanliness": clean, "reasons": reasons})
        return found

    def __call__(self, images, prompts, metadata=None):
        return [entry["score"] for entry in self.details(images, prompts, metadata)]


def train_line(step: int, num_steps: int, rng: np.random.Generator) -> dict:
    """A line of metrics.jsonl such as SIPO training writes."""
    done = step / num_steps
    gap = 1.6 * (1 - math.exp(-3 * done)) + rng.normal(0, 0.25)
    chosen = 0.5 * gap + rng.normal(0, 0.1)
    w = 0.96 - 0.02 * done + rng.normal(0, 0.004)
    edges = np.linspace(0, 1000, 11)
    centres = (edges[:-1] + edges[1:]) / 2
    w_bins = 1 - 0.25 * np.exp(-centres / 120) + rng.normal(0, 0.004, 10)
    error = 0.05 + 0.6 * np.exp(-centres / 200)
    count = [int(c) for c in rng.integers(0, 4, 10)]

    def per_bin(values):
        return [float(v) if c else None for v, c in zip(values, count, strict=True)]

    return {
        "kind": "train", "step": step, "loss": math.log1p(math.exp(-gap)), "learning_rate": 1e-4 * min(1, step / 50),
        "grad_norm": 0.4 + 0.1 * rng.random(), "overflows": 0,
        "reward_chosen": chosen, "reward_rejected": chosen - gap, "reward_gap": gap,
        "accuracy": min(1.0, 0.5 + 0.3 * done + rng.normal(0, 0.05)), "tie": 0.0,
        "sigmoid_neg_logit": 1 / (1 + math.exp(gap)), "weight": w, "w_chosen": w, "w_rejected": w - 0.02,
        "pruned": 0.1 + 0.02 * rng.random(), "clipped": 0.03, "effective_sample_size": 0.97,
        "mse_policy_chosen": 0.2 - 0.01 * done, "mse_reference_chosen": 0.2,
        "mse_policy_rejected": 0.21 + 0.01 * done, "mse_reference_rejected": 0.21,
        "seconds": {"total": 0.52, "data": 0.01, "reference": 0.12, "policy": 0.36, "other": 0.03},
        "bins": {
            "edges": edges.tolist(), "count": count,
            "w_chosen": per_bin(w_bins), "w_rejected": per_bin(w_bins - 0.02),
            "reward_gap": per_bin(gap * centres / 500), "reward_chosen": per_bin(centres / 1000),
            "reward_rejected": per_bin(-centres / 800), "mse_policy_chosen": per_bin(error * 0.97),
            "mse_reference_chosen": per_bin(error), "mse_policy_rejected": per_bin(error * 1.05),
            "mse_reference_rejected": per_bin(error * 1.02), "pruned": per_bin(np.exp(-centres / 100)),
            "loss": per_bin(0.7 - 0.1 * centres / 1000), "accuracy": per_bin(0.5 + centres / 5000),
        },
    }  # fmt: skip


def write_metrics(run: Path, num_steps: int) -> None:
    rng = np.random.default_rng(0)
    lines = [train_line(step, num_steps, rng) for step in range(1, num_steps + 1)]
    for i, step in enumerate(range(0, num_steps + 1, max(1, num_steps // 6))):
        loss = 0.693 - 0.08 * math.sin(min(1.0, i / 4) * math.pi / 2) + 0.01 * max(0, i - 4)
        lines.append({"kind": "validation", "step": step, "loss": loss, "accuracy": 0.5 + 0.04 * i, "tie": 0.0,
                      "reward_gap": 0.1 * i, "pruned": 0.1})  # fmt: skip
    lines.append(
        {"kind": "warning", "step": num_steps // 2, "message": "The rewards of chosen and rejected fall together."}
    )
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def scored_side(folder: Path, *scorers: str) -> Side:
    """A scored media folder as a side of a comparison, under the folder's name."""
    return Side(folder.name, folder, {scorer: read_scores(folder, scorer) for scorer in scorers})


def write_evaluation(run: Path, num_prompts: int, size: int = 64) -> Path:
    folder = run / "evaluation" / "heldout"
    for name, noise, wrong in (("policy", 8, 0.2), ("base", 20, 0.4)):
        settings = {"model": "miniature", "weights": name, "num_inference_steps": 25, "guidance_scale": 4.0}
        generate(sampler(noise, wrong, size), prompt_items(num_prompts), folder / name, settings)
        score(folder / name, ColourScorer())
    write_contest(contest([scored_side(folder / name, "colour") for name in ("policy", "base")], ["colour"]), folder)
    return folder


def make_run(run: Path, num_steps: int = 600, num_prompts: int = 240, size: int = 64) -> Path:
    """Everything a run directory can hold that a report reads."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    (run / "env.json").write_text(json.dumps({"packages": {"torch": "2.13.0", "sipo": "0.1.0"}, "device": "cpu"}))
    (run / "data.json").write_text(json.dumps(DATA.to_dict()))
    write_metrics(run, num_steps)
    for i, step in enumerate(range(0, num_steps + 1, max(1, num_steps // 6))):
        generate(sampler(30 - 4 * i, 0.0, size), prompt_items(4), run / "samples" / f"{step:06d}", {"step": step})
    write_evaluation(run, num_prompts, size)
    return run
