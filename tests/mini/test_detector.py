"""The detector against scenes whose contents are known."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sipo.geneval.rules import judge
from sipo.mini.detector import detect, name_color
from sipo.mini.prompts import sample_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.world import BACKGROUNDS, COLORS, SHAPES, Scene, Thing, render


def contents(found):
    return sorted((shape, d.color) for shape, detections in found.items() for d in detections)


def test_right_on_at_least_99_in_100_rendered_pictures():
    """Every object found with its shape and colour, none invented, and the judge agrees that the prompt is met."""
    rng = np.random.default_rng(7)
    prompts = sample_prompts(600, seed=11)
    right = 0
    for prompt in prompts:
        scene = sample_scene(prompt, rng)
        found = detect(render(scene, rng))
        exact = contents(found) == sorted((thing.shape, thing.color) for thing in scene.things)
        right += exact and judge(prompt, found).correct
    assert right / len(prompts) >= 0.99


def test_boxes_are_where_the_things_are():
    scene = Scene((Thing("square", "red", 20, 40, 10), Thing("circle", "blue", 45, 18, 9)), BACKGROUNDS[0])
    found = detect(render(scene, np.random.default_rng(0)))
    assert found["square"][0].box == pytest.approx((11, 31, 29, 49), abs=1)  # half a side is 0.9 radius
    assert found["circle"][0].box == pytest.approx((36, 9, 54, 27), abs=1)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_shape_and_color_on_every_background(background):
    for shape in SHAPES:
        for color in COLORS:
            scene = Scene((Thing(shape, color, 30, 33, 9),), background)
            assert contents(detect(render(scene, np.random.default_rng(1)))) == [(shape, color)]


def test_tolerates_noise_and_slight_blur():
    rng = np.random.default_rng(3)
    right = 0
    for prompt in sample_prompts(60, seed=5):
        image = render(sample_scene(prompt, rng), rng).filter(ImageFilter.GaussianBlur(0.6))
        noisy = np.asarray(image, dtype=float) + rng.normal(0, 8, (64, 64, 3))
        right += judge(prompt, detect(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))).correct
    assert right >= 57


def test_neither_empty_pictures_nor_noise_hold_objects():
    rng = np.random.default_rng(0)
    assert detect(Image.new("RGB", (64, 64), BACKGROUNDS[3])) == {}
    for _ in range(5):
        assert detect(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))) == {}


def test_detections_come_best_first():
    rng = np.random.default_rng(2)
    for prompt in sample_prompts(30, seed=9, shares={"counting": 1.0}):
        for detections in detect(render(sample_scene(prompt, rng), rng)).values():
            scores = [d.score for d in detections]
            assert scores == sorted(scores, reverse=True)


def test_names_of_the_palette():
    for name, rgb in COLORS.items():
        assert name_color(np.array(rgb)) == name
