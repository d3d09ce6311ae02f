"""The bundled miniatures: small models in small worlds that are judged by rule. One record each; see README.md here."""

from pathlib import Path

from sipo.registry import Miniature

FOLDER = Path(__file__).parent

STILL = Miniature(
    name="miniature",
    about="Stable Diffusion in small: 64 x 64 pictures of coloured shapes",
    weights=FOLDER / "weights",
    pairs=FOLDER / "pairs" / "pairs.parquet",
    train_prompts=FOLDER / "prompts" / "train.jsonl",
    heldout_prompts=FOLDER / "prompts" / "heldout.jsonl",
    scorer="sipo.mini.score:MiniatureScorer",
    detector="sipo.mini.detector:MiniatureDetector",
    world="sipo.mini.wording:WORLD",
    num_inference_steps=20,
    guidance_scale=4.0,
)

MINIATURES = {each.name: each for each in (STILL,)}
