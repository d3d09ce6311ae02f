"""The score of clips: right before clean, and cleaner the less a clip flickers, jumps or smears."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from sipo.errors import UserError
from sipo.mini.video.clips import FRAMES, Clip, Mover, render_clip, sample_clip, to_frames
from sipo.mini.video.score import VideoMiniatureScorer
from sipo.mini.video.wording import all_prompts
from sipo.mini.world import BACKGROUNDS, Thing
from sipo.scorers.base import DetailedScorer, VideoScorer

SCORER = VideoMiniatureScorer()


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    prompts = [group[k * 7 % len(group)] for group in all_prompts().values() for k in range(3)]
    return prompts, [render_clip(sample_clip(prompt, rng), rng).astype(float) for prompt in prompts]


def flicker(pixels, level):
    return pixels + level * np.array([1, -1] * FRAMES)[:FRAMES, None, None, None]


def shake(pixels, level):
    return np.stack([np.roll(frame, level * (k % 2), axis=0) for k, frame in enumerate(pixels)])


def smear(pixels, level):
    smeared = [pixels[0]]
    for frame in pixels[1:]:
        smeared.append(level * smeared[-1] + (1 - level) * frame)
    return np.stack(smeared)


def as_media(pixels):
    return to_frames(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(("spoil", "levels"), [(flicker, (4, 10, 20)), (shake, (2, 4, 8)), (smear, (0.4, 0.6, 0.8))])
def test_cleanliness_falls_with_every_corruption(clips, spoil, levels):
    prompts, media = clips
    means = []
    for level in (None, *levels):
        versions = [as_media(pixels if level is None else spoil(pixels, level)) for pixels in media]
        details = SCORER.details(versions, [prompt["prompt"] for prompt in prompts], prompts)
        means.append(np.mean([entry["cleanliness"] for entry in details]))
    assert 0.8 < means[0] <= 1
    assert all(worse < better - 0.02 for better, worse in pairwise(means))


def test_a_colour_that_changes_for_one_frame_costs_what_the_formula_says():
    """One flat square, grey by a known number of levels in one of nine frames: rms is exact."""
    clip = Clip((Mover(Thing("square", "black", 32, 32, 10), 0.0, 0.0),), BACKGROUNDS[1])
    pixels = render_clip(clip, np.random.default_rng(0)).astype(float)
    before = SCORER.details([as_media(pixels)], ["a video of a square"])[0]["cleanliness"]
    inside = (pixels[0] == pixels[0, 32, 32]).all(-1)
    changed = pixels.copy()
    changed[4][inside] += 30
    after = SCORER.details([as_media(changed)], ["a video of a square"])[0]["cleanliness"]
    added = 30**2 * inside.mean() / FRAMES  # to the mean square
    expected = np.exp(-np.sqrt((16 * np.log(before)) ** 2 + added) / 16)
    assert after == pytest.approx(expected, abs=0.02)


def test_a_right_clip_beats_any_wrong_one(clips):
    prompts, media = clips
    right = SCORER([as_media(flicker(pixels, 6)) for pixels in media], [prompt["prompt"] for prompt in prompts])
    wrong = SCORER(
        [as_media(pixels) for pixels in media], ["a video of a white triangle moving slowly up"] * len(media)
    )
    assert np.mean([score > 1 for score in right]) >= 0.9
    assert np.mean([score < 1 for score in wrong]) >= 0.9


def test_the_score_is_the_sum_and_reasons_say_what_is_wrong(clips):
    prompts, media = clips
    frames = [as_media(pixels) for pixels in media]
    details = SCORER.details(frames, [prompt["prompt"] for prompt in prompts])
    assert all(entry["score"] == entry["correct"] + entry["cleanliness"] for entry in details)
    assert SCORER(frames[:1], ["anything"], [prompts[0]]) == SCORER(frames[:1], [prompts[0]["prompt"]])
    (wrong,) = SCORER.details([as_media(np.full((9, 64, 64, 3), 128.0))], ["a video of a square"])
    assert wrong["cleanliness"] == 1
    assert wrong["reasons"] == ["expected 1 in every frame, found 0 in frame 1"]


def test_things_that_come_and_go_are_redrawn_where_they_stand(clips):
    """A clip whose number of things changes is not followed, but is as clean as its frames are."""
    pixels = clips[1][0].copy()
    pixels[:3] = pixels[0, 0, 0]
    (found,) = SCORER.details([as_media(pixels)], ["a video of a square"])
    assert not found["correct"]
    assert found["cleanliness"] > 0.8


def test_it_takes_videos_and_says_so():
    assert isinstance(SCORER, VideoScorer)
    assert isinstance(SCORER, DetailedScorer)
    with pytest.raises(UserError, match="judges videos, not pictures"):
        SCORER([Image.new("RGB", (64, 64))], ["a video of a square"])
    with pytest.raises(UserError, match="a photo of a square"):
        SCORER([as_media(np.zeros((9, 64, 64, 3)))], ["a photo of a square"])
