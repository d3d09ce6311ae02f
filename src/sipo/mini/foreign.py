"""`sipo mini foreign`: pairs of pictures from another hand, in a style that the miniature cannot draw.

As section 3.1 of the paper has it for SD1.5, whose pairs stronger models made: both members are far from what the policy
produces, and only what they show tells the better from the worse.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from sipo.data.pairs.pick_a_pic import encode_rows, pair_row
from sipo.files import write_atomic
from sipo.geneval.rules import judge
from sipo.mini.flaws import truth, wrong_attribute
from sipo.mini.prompts import sample_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.world import SIZE, Scene, render

PERIOD, DEPTH = 6, 60


def draw_pair(prompt: dict, rng: np.random.Generator) -> tuple[Scene, Scene]:
    """A scene that the prompt is true of, and one that it is false of, in one attribute."""
    chosen = sample_scene(prompt, rng)
    other = wrong_attribute(prompt, chosen, rng)
    while judge(prompt, truth(rejected := sample_scene(other, rng))).correct:
        pass  # what the other prompt leaves open fell out as this one wants it
    return chosen, rejected


def hatched(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """`scene` on a background of dark diagonal lines: 3 of every 6 pixels, 60 levels darker."""
    drawn = np.asarray(render(scene, rng)).astype(np.int16)
    empty = np.array(scene.background)
    y, x = np.mgrid[:SIZE, :SIZE]
    lines = ((x + y) % PERIOD < PERIOD // 2) & (np.abs(drawn - empty).max(axis=-1) < 4)
    return Image.fromarray(np.where(lines[..., None], drawn - DEPTH, drawn).clip(0, 255).astype(np.uint8))


def write_foreign_pairs(out: Path, num_pairs: int = 1000, seed: int = 0) -> None:
    """Write `out` (parquet): for each draw of a training prompt a right hatched picture, and one that is wrong in an attribute."""
    rng, rows = np.random.default_rng([seed, 11]), []
    for number, prompt in enumerate(sample_prompts(num_pairs, seed, "train")):
        chosen, rejected = (_png(hatched(scene, rng)) for scene in draw_pair(prompt, rng))
        rows.append(pair_row(prompt["prompt"], number, chosen, rejected, 1.0, seed, ("hatched", "hatched")))
    write_atomic(out, encode_rows(rows, row_group_size=200))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
