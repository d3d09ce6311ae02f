"""Degraded clips are visibly degraded, each in its own way; wrong captions are false of their clips as they should be."""

import numpy as np
import pytest

from sipo.mini.video import flaws
from sipo.mini.video.clips import FRAMES, render_clip, sample_clip, to_frames
from sipo.mini.video.flaws import degrade, truth, wrong_attribute, wrong_clip
from sipo.mini.video.rules import judge
from sipo.mini.video.score import VideoMiniatureScorer
from sipo.mini.video.wording import all_prompts, parse

KEYS = ("class", "color", "motion", "pace")


def clips(each, seed=0):
    rng = np.random.default_rng(seed)
    for group in all_prompts().values():
        for _ in range(each):
            prompt = group[rng.integers(len(group))]
            yield prompt, sample_clip(prompt, rng), rng


@pytest.mark.parametrize("make", [wrong_attribute, wrong_clip])
def test_wrong_captions_are_false_of_the_clip_and_in_the_worlds_wording(make):
    for prompt, clip, rng in clips(60):
        wrong = make(prompt, clip, rng)
        assert wrong["tag"] == prompt["tag"]
        assert parse(wrong["prompt"]) == wrong
        assert not judge(wrong, truth(clip)).correct, (prompt["prompt"], wrong["prompt"])


def test_one_attribute_is_changed_and_each_kind_is():
    kinds = set()
    for prompt, clip, rng in clips(80):
        wrong = wrong_attribute(prompt, clip, rng)
        before, after = ([clause.get(key) for clause in entry["include"] for key in KEYS] for entry in (prompt, wrong))
        (place,) = [k for k in range(len(before)) if before[k] != after[k]]
        kinds.add(KEYS[place % 4])
    assert kinds == set(KEYS)


@pytest.mark.parametrize(("kind", "least", "most"), [(0, 0.8, 1), (1, 0.3, 0.8), (2, 0.4, 0.9)], ids=["flicker", "jump", "smear"])  # fmt: skip
def test_each_degradation_is_seen_by_the_score(kind, least, most):
    """Far less clean than a flawless clip. Flicker leaves the motion as it is; jumps and smears often hide it."""
    flawless, poor, prompts = [], [], []
    for prompt, clip, rng in clips(12):
        pixels = render_clip(clip, rng)
        changed = np.clip(flaws.DEGRADATIONS[kind](pixels.astype(float), rng), 0, 255).astype(np.uint8)
        flawless.append(to_frames(pixels))
        poor.append(to_frames(changed))
        prompts.append(prompt)
    before, after = (VideoMiniatureScorer().details(media, [""] * len(media), prompts) for media in (flawless, poor))
    assert np.mean([entry["cleanliness"] for entry in before]) > 0.8
    assert np.mean([entry["cleanliness"] for entry in after]) < 0.65
    assert least <= np.mean([entry["correct"] for entry in after]) <= most


def test_what_flickers_keeps_its_place_what_jumps_its_colours_and_what_smears_its_past():
    for _, clip, rng in clips(3):
        pixels = render_clip(clip, rng).astype(float)
        flickering, jumping, smeared = (change(pixels, rng) for change in flaws.DEGRADATIONS)
        shift = (flickering - pixels).reshape(FRAMES, -1, 3)
        np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-9)
        assert np.ptp(shift[:, 0], axis=0).min() > 10
        for frame in range(FRAMES):
            assert set(map(tuple, jumping[frame].reshape(-1, 3))) <= set(map(tuple, pixels[frame].reshape(-1, 3)))
        assert not np.array_equal(jumping, pixels)
        assert np.array_equal(jumping[0], pixels[0])
        low, high = np.minimum.accumulate(pixels), np.maximum.accumulate(pixels)
        assert (smeared >= low - 1e-9).all()
        assert (smeared <= high + 1e-9).all()


def test_degrading_is_seeded_and_leaves_the_clip_given_unchanged():
    _, clip, rng = next(clips(1))
    pixels = render_clip(clip, rng)
    before = pixels.copy()
    once, again = (degrade(pixels, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.dtype == np.uint8
    assert np.array_equal(pixels, before)
    assert not np.array_equal(once, before)
