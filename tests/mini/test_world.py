"""Scenes hold what their prompt asks for, and their pictures look as the scene says."""

import itertools
import math

import numpy as np
import pytest

from sipo.geneval.rules import Detection, judge
from sipo.mini.prompts import sample_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.world import COLORS, SHAPES, SIZE, Scene, Thing, render, silhouette


def truth(scene):
    """A perfect detector's answer, read from the scene itself."""
    found = {}
    for thing in scene.things:
        r = thing.radius
        box = (thing.x - r, thing.y - r, thing.x + r, thing.y + r)
        found.setdefault(thing.shape, []).append(Detection(box, 1.0, thing.color))
    return found


def test_every_scene_is_right_for_its_prompt():
    rng = np.random.default_rng(0)
    for prompt in sample_prompts(900, seed=1):
        verdict = judge(prompt, truth(sample_scene(prompt, rng)))
        assert verdict.correct, (prompt["prompt"], verdict.reasons)


def test_things_stay_inside_and_apart():
    rng = np.random.default_rng(1)
    for prompt in sample_prompts(600, seed=2):
        things = sample_scene(prompt, rng).things
        for thing in things:
            reach = 1.25 * thing.radius  # the star's
            assert min(thing.x, thing.y) - reach > 1
            assert max(thing.x, thing.y) + reach < SIZE - 1
        for a, b in itertools.combinations(things, 2):
            assert math.hypot(a.x - b.x, a.y - b.y) > 1.25 * (a.radius + b.radius)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_its_outlines_area(shape):
    """Against the shoelace formula; the drawing is off by a fraction of its outline."""
    x, y = np.array(SHAPES[shape]).T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    box = np.ptp(x) * np.ptp(y)
    assert silhouette(shape, (0, 0, 40, 40), 40, 40).mean() == pytest.approx(area / box, abs=0.03)


def test_render_paints_each_color_where_the_thing_is():
    things = tuple(Thing("circle", c, 16 + 32 * (i % 2), 16 + 32 * (i // 2), 9) for i, c in enumerate(list(COLORS)[:4]))
    pixels = np.asarray(render(Scene(things, (128, 130, 134)), np.random.default_rng(0)), dtype=int)
    assert (pixels[0, 0] == (128, 130, 134)).all()
    for thing in things:
        center = pixels[round(thing.y), round(thing.x)]
        assert np.abs(center - COLORS[thing.color]).max() <= 10
