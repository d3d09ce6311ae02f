"""Clips hold what their prompt asks for, and move as they say."""

import itertools

import numpy as np

from sipo.mini.video.clips import DIRECTIONS, FRAMES, PACES, render_clip, sample_clip
from sipo.mini.video.flaws import truth
from sipo.mini.video.rules import judge
from sipo.mini.video.wording import all_prompts
from sipo.mini.world import SIZE


def drawn(each, seed=0):
    """Entries and clips, `each` of every category."""
    rng = np.random.default_rng(seed)
    for group in all_prompts().values():
        for _ in range(each):
            prompt = group[rng.integers(len(group))]
            yield prompt, sample_clip(prompt, rng), rng


def test_every_clip_is_right_for_its_prompt():
    for prompt, clip, _ in drawn(80):
        assert judge(prompt, truth(clip)).correct, prompt["prompt"]


def test_things_stay_inside_and_apart_in_all_frames():
    for _, clip, _ in drawn(40):
        for frame in range(FRAMES):
            things = clip.scene(frame).things
            for thing in things:
                reach = 1.25 * thing.radius
                assert min(thing.x, thing.y) - reach > 1
                assert max(thing.x, thing.y) + reach < SIZE - 1
            for a, b in itertools.combinations(things, 2):
                assert np.hypot(a.x - b.x, a.y - b.y) > 1.25 * (a.radius + b.radius)


def test_a_stated_motion_is_that_of_the_pixels():
    """The centre of all that differs from the background moves in the direction and at the pace of the prompt."""
    rng = np.random.default_rng(1)
    for prompt in all_prompts()["speed"][::7]:
        pixels = render_clip(sample_clip(prompt, rng), rng).astype(float)
        off = np.abs(pixels - pixels[:1, :1, :1]).sum(-1)  # (frames, 64, 64)
        y, x = np.mgrid[:SIZE, :SIZE]
        centers = np.array([((x * frame).sum() / frame.sum(), (y * frame).sum() / frame.sum()) for frame in off])
        steps = np.diff(centers, axis=0)
        (thing,) = prompt["include"]
        along = steps @ DIRECTIONS[thing["motion"]]
        low, high = PACES[thing["pace"]]
        assert low - 0.15 < along.min()
        assert along.max() < high + 0.15


def test_a_clip_is_drawn_by_its_seed_and_its_colours_stay():
    for prompt, clip, _ in drawn(4):
        once, again = (render_clip(clip, np.random.default_rng(3)) for _ in range(2))
        assert once.shape == (FRAMES, SIZE, SIZE, 3)
        assert np.array_equal(once, again), prompt
        middles = [once[k, round(thing.y), round(thing.x)] for k in range(FRAMES) for thing in clip.scene(k).things[:1]]
        assert len(np.unique(middles, axis=0)) == 1
