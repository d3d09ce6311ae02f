"""Pixels of images and videos: the shape and range a model sees, frames cut alike, and what it cannot take."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import videos
from support.pictures import encoded, picture

from sipo.data.bad_rows import BadRow
from sipo.data.media.crop import crop_for, resize_crop
from sipo.data.media.decode_video import read_frames
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import probe, to_floats, to_tensor
from sipo.size import Size

CLIP = Size(height=16, width=24, num_frames=3, fps=8.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    assert probe(encoded(Image.new("RGB", size), "JPEG"))
    content = encoded(Image.new("RGB", size, (255, 0, 127)))
    for target in (Size(64, 64), Size(40, 64)):
        pixels, crops = load_pixels(content, target, (0.3, 0.7))
        assert pixels.shape == target.pixel_shape
        assert torch.allclose(pixels[:, 0, 0], torch.tensor([1.0, -1.0, 127 / 127.5 - 1]))
        assert crops[0, :2].tolist() == [size[1], size[0]]


def test_micro_conditioning_is_that_of_the_upright_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    content = encoded(Image.new("RGB", (80, 40)), "JPEG", exif=exif)
    assert load_pixels(content, Size(16, 16))[1][0].tolist() == [80, 40, 8, 0]


@pytest.mark.parametrize("side", [(63, 49), (50, 31), (33, 64)])
@pytest.mark.parametrize("crop", [(0.5, 0.5), (0.1, 0.9)])
def test_every_frame_is_cut_like_a_picture(side: tuple[int, int], crop: tuple[float, float], tmp_path: Path) -> None:
    """Oracle: each full-size frame on its own, through the path of images. Odd sizes need a codec without 4:2:0."""
    frames = [np.asarray(Image.open(videos.io.BytesIO(picture(seed, side)))) for seed in range(3)]
    folder = videos.folder(tmp_path / "clip", frames)
    pixels, crops = load_pixels(folder, CLIP, crop)
    cut = crop_for(side, CLIP, crop)
    expected = [to_floats(to_tensor(resize_crop(Image.fromarray(frame), cut))) for frame in frames]
    assert torch.equal(pixels, torch.stack(expected))
    assert torch.equal(crops, cut.micro_conditioning())
    assert pixels.shape == CLIP.pixel_shape == (3, 3, 16, 24)


@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_files_bytes_and_odd_sizes(format: str, tmp_path: Path) -> None:
    content = videos.video(videos.noise(6, (72, 40)), 16, format)
    (tmp_path / "clip.any").write_bytes(content)
    pixels, _ = load_pixels(content, CLIP)
    assert torch.equal(pixels, load_pixels(tmp_path / "clip.any", CLIP)[0])
    frames = [frame.picture() for frame in read_frames(content)]
    expected = [to_floats(to_tensor(resize_crop(frames[i], crop_for((72, 40), CLIP)))) for i in (0, 2, 4)]
    assert torch.equal(pixels, torch.stack(expected))
    assert -1 <= pixels.min() < -0.5 < 0.5 < pixels.max() <= 1


def test_a_video_whose_sides_are_odd() -> None:
    content = videos.video(videos.grey(3, (33, 21)), 8, "matroska", codec="libvpx-vp9")
    pixels, crops = load_pixels(content, CLIP)
    assert crops[0, :2].tolist() == [21, 33]
    assert [videos.number((frame.mean().item() + 1) * 127.5) for frame in pixels] == [0, 1, 2]


def test_a_rotated_video_has_its_upright_micro_conditioning() -> None:
    content = videos.video(videos.noise(3, (64, 32)), 8, rotation=90)
    assert load_pixels(content, CLIP)[1][0, :2].tolist() == [64, 32]


def test_repeated_frames_are_equal() -> None:
    pixels, _ = load_pixels(videos.video(videos.noise(3), 4), Size(16, 16, 6, 8.0))
    assert torch.equal(pixels[::2], pixels[1::2])
    assert not torch.equal(pixels[0], pixels[2])


def test_what_a_model_cannot_take(tmp_path: Path) -> None:
    clip = videos.video(videos.grey(3))
    for media in (clip, videos.folder(tmp_path / "clip", videos.grey(3))):
        with pytest.raises(BadRow, match="is a video; the model makes images") as caught:
            load_pixels(media, Size(16, 16))
        assert caught.value.kind == "mismatched"
    with pytest.raises(BadRow, match="is an image; the model makes videos of 3 frames") as caught:
        load_pixels(picture(0), CLIP)
    assert caught.value.kind == "too_short"
    one = Size(16, 16, 1, 8.0)
    assert torch.equal(load_pixels(picture(0), one)[0][0], load_pixels(picture(0), Size(16, 16))[0])
