"""The bundled miniatures: small models in small worlds that are judged by rule. One record each; see README.md here."""

from dataclasses import replace
from pathlib import Path

from sipo.registry import Miniature
from sipo.samples.metadata import CATEGORIES

FOLDER = Path(__file__).parent

STILL = Miniature(
    name="miniature",
    about="Stable Diffusion in small: 64 x 64 pictures of coloured shapes",
    weights=FOLDER / "weights",
    pairs=FOLDER / "pairs" / "pairs.parquet",
    train_prompts=FOLDER / "prompts" / "train.jsonl",
    heldout_prompts=FOLDER / "prompts" / "heldout.jsonl",
    categories=CATEGORIES,
    scorer="sipo.mini.score:MiniatureScorer",
    detector="sipo.mini.detector:MiniatureDetector",
    world="sipo.mini.wording:WORLD",
    num_inference_steps=20,
    guidance_scale=4.0,
)

FLOW = replace(
    STILL,
    name="miniature-flow",
    about="FLUX in small: the same pictures by flow matching, with classifier-free guidance",
    weights=FOLDER / "flow" / "weights",
    pairs=FOLDER / "flow" / "pairs.parquet",
)

VIDEO = Miniature(
    name="miniature-video",
    about="CogVideoX in small: clips of moving shapes, 9 frames of 64 x 64 pixels",
    weights=FOLDER / "video" / "weights",
    pairs=FOLDER / "video" / "pairs.parquet",
    train_prompts=FOLDER / "video" / "prompts" / "train.jsonl",
    heldout_prompts=FOLDER / "video" / "prompts" / "heldout.jsonl",
    categories=("shape", "color", "direction", "speed"),
    scorer="sipo.mini.video.score:VideoMiniatureScorer",
    detector=None,
    world=None,
    num_inference_steps=20,
    guidance_scale=2.0,
)

MINIATURES = {each.name: each for each in (STILL, FLOW, VIDEO)}
