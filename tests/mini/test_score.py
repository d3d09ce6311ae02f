"""The preference score: right before clean, and cleaner the less a picture is corrupted."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from sipo.errors import UserError
from sipo.mini.prompts import sample_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.score import MiniatureScorer
from sipo.mini.world import render

SCORER = MiniatureScorer()


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    prompts = sample_prompts(24, seed=21)
    return prompts, [render(sample_scene(prompt, rng), rng) for prompt in prompts]


def noised(image, level):
    noise = np.random.default_rng(0).normal(0, level, (64, 64, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def blurred(image, radius):
    return image.filter(ImageFilter.GaussianBlur(radius))


def blotted(image, number):
    """With stray marks on it: too thin for an object."""
    spoiled = image.copy()
    for k in range(int(number)):
        ImageDraw.Draw(spoiled).line([(2, 4 + 9 * k), (61, 4 + 9 * k)], fill=(255, 0, 255))
    return spoiled


@pytest.mark.parametrize(("spoil", "levels"), [(noised, (4, 10, 20)), (blurred, (0.7, 1.2, 2.0)), (blotted, (1, 2, 3))])
def test_cleanliness_falls_with_every_corruption(scenes, spoil, levels):
    """On average over scenes, at every level; and the clean pictures are near 1."""
    prompts, images = scenes
    means = []
    for level in (None, *levels):
        versions = [image if level is None else spoil(image, level) for image in images]
        details = SCORER.details(versions, [prompt["prompt"] for prompt in prompts], prompts)
        means.append(np.mean([entry["cleanliness"] for entry in details]))
    assert 0.8 < means[0] <= 1
    assert all(worse < better - 0.02 for better, worse in pairwise(means))


def test_a_right_picture_beats_any_wrong_one(scenes):
    """Even when the right one is noisy and the wrong one spotless."""
    prompts, images = scenes
    texts = [prompt["prompt"] for prompt in prompts]
    right = SCORER([noised(image, 8) for image in images], texts)
    wrong = SCORER(images, ["a photo of four white triangles"] * len(images))
    assert np.mean([r > 1 for r in right]) >= 0.95
    assert max(w for w, text in zip(wrong, texts, strict=True) if "four white triangles" not in text) < 1


def test_the_score_is_the_sum_and_reasons_say_what_is_wrong(scenes):
    prompts, images = scenes
    details = SCORER.details(images, [prompt["prompt"] for prompt in prompts])
    assert all(entry["score"] == entry["correct"] + entry["cleanliness"] for entry in details)
    wrong = SCORER.details(images[:1], ["a photo of four white triangles"])[0]
    assert not wrong["correct"]
    assert "triangle" in wrong["reasons"][0]


def test_metadata_goes_before_the_text(scenes):
    prompts, images = scenes
    assert SCORER(images[:1], ["anything at all"], [prompts[0]]) == SCORER(images[:1], [prompts[0]["prompt"]])


def test_a_flat_picture_is_perfectly_clean():
    entry = SCORER.details([Image.new("RGB", (64, 64), (128, 130, 134))], ["a photo of a star"])[0]
    assert entry["cleanliness"] == 1
    assert not entry["correct"]


def test_prompts_of_another_world_are_refused():
    with pytest.raises(UserError, match="a photo of a horse"):
        SCORER([Image.new("RGB", (64, 64))], ["a photo of a horse"])
