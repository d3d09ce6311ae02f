"""The detector and the rules against clips whose contents are known."""

import numpy as np
import pytest
from PIL import Image

from sipo.data.media.decode_video import read_frames
from sipo.data.media.encode_video import encode_video
from sipo.mini.video.clips import FRAMES, Clip, Mover, render_clip, sample_clip, to_frames
from sipo.mini.video.detector import Seen, find_objects, follow, see
from sipo.mini.video.flaws import truth
from sipo.mini.video.rules import judge
from sipo.mini.video.wording import all_prompts, parse
from sipo.mini.world import BACKGROUNDS, Thing


def look(frames):
    return [see(blobs) for blobs in find_objects(frames)]


def through_a_file(frames, path):
    path.write_bytes(encode_video(frames, 8.0))
    return [frame.picture() for frame in read_frames(path)]


@pytest.mark.parametrize("is_written", [False, True], ids=["as rendered", "from an mp4"])
def test_right_on_at_least_99_in_100_rendered_clips(tmp_path, is_written):
    """Every thing followed with its shape and colour, none invented, and the judge agrees that the prompt is met."""
    rng = np.random.default_rng(7)
    right, number = 0, 0
    for group in all_prompts().values():
        for k in rng.permutation(40) % len(group):
            prompt = group[k * len(group) // 40 if len(group) > 40 else k]
            clip = sample_clip(prompt, rng)
            frames = to_frames(render_clip(clip, rng))
            found = look(through_a_file(frames, tmp_path / "clip.mp4") if is_written else frames)
            kinds = [sorted((each.shape, each.color) for each in things) for things in found]
            exact = kinds == [sorted((each.shape, each.color) for each in things) for things in truth(clip)]
            right += exact and judge(prompt, found).correct
            number += 1
    assert number == 200
    assert right / number >= 0.99


def test_things_are_where_they_are():
    rng = np.random.default_rng(0)
    for shape in ("cross", "triangle", "circle"):
        clip = Clip((Mover(Thing(shape, "red", 20, 30, 10), 2.5, 0.5),), BACKGROUNDS[0])
        for found, known in zip(look(to_frames(render_clip(clip, rng))), truth(clip), strict=True):
            assert found[0].box == pytest.approx(known[0].box, abs=0.6)


def seen(*places, shape="square", color="red"):
    return [Seen(shape, color, (x - 5, y - 5, x + 5, y + 5)) for x, y in places]


def test_things_are_followed_by_place_whatever_their_order():
    frames = [seen((10 + k, 20), (50 - k, 40)) for k in range(5)]
    frames[2], frames[3] = frames[2][::-1], frames[3][::-1]
    assert follow(frames).tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert follow([*frames, seen((14, 20))]) is None
    assert follow([[], []]).shape == (0, 2)


def moving(dx, dy, **changes):
    return [seen((30 + k * dx, 30 + k * dy), **changes) for k in range(FRAMES)]


@pytest.mark.parametrize(
    ("prompt", "dx", "dy", "reason"),
    [
        ("a video of a square moving left", -1.2, 0.1, None),
        ("a video of a square moving left", 1.2, 0.1, "expected square left, found right"),
        ("a video of a square moving up", 0.0, -1.2, None),  # y points down, as in pictures
        ("a video of a square moving up", 1.0, -1.2, "expected square up, found no clear motion"),
        ("a video of a square moving up", 0.0, -0.4, "expected square up, found no clear motion"),
        ("a video of a square moving slowly down", 0.0, 1.2, None),
        ("a video of a square moving quickly down", 0.0, 1.2, "expected square quickly, found slowly"),
        ("a video of a square moving quickly down", 0.0, 3.2, None),
        ("a video of a red square", 0.0, 0.0, None),
        ("a video of a blue square", 0.0, 0.0, "expected square blue, found red"),
        ("a video of a circle", 1.0, 0.0, "expected circle, found square"),
        ("a video of a square moving left and a circle moving up", -1.2, 0.0, "expected 2 in every frame, found 1 in frame 1"),
    ],
)  # fmt: skip
def test_each_rule(prompt, dx, dy, reason):
    judgement = judge(parse(prompt), moving(dx, dy))
    assert judgement.reasons == ((reason,) if reason else ())
    assert judgement.correct == (reason is None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": "circle"}, "the square does not keep its shape: frames 3, 5, 6 show circle"),
        ({"color": "blue"}, "the square does not keep its colour: frames 3, 5, 6 show blue"),
    ],
)
def test_shape_and_colour_must_last_but_for_two_lapses(change, said):
    """Whether the prompt names them or not; most frames say what a thing is, not the first one."""
    other = moving(1, 0, **change)
    clip = moving(1, 0)
    for frame in (2, 4, 5):
        assert judge(parse("a video of a square moving right"), clip).correct
        clip[frame] = other[frame]
    assert judge(parse("a video of a square moving right"), clip).reasons == (said,)
    begins_otherwise = [*other[:2], *moving(1, 0)[2:]]
    assert judge(parse("a video of a red square moving right"), begins_otherwise).correct


def test_the_number_of_things_must_last():
    clip = moving(1, 0)
    clip[6] = []
    assert judge(parse("a video of a square"), clip).reasons == ("expected 1 in every frame, found 0 in frame 7",)


def test_neither_empty_clips_nor_noise_hold_objects():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]
    assert find_objects([Image.new("RGB", (64, 64), BACKGROUNDS[3]), *noise]) == [[], [], [], []]
    assert not judge(parse("a video of a square"), [[], [], []]).correct
