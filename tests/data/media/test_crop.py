"""Scaling to cover, cutting, and saying where: against resizing first and cutting then, and diffusers' arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image

from sipo.data.media.crop import Crop, crop_for, resize_crop
from sipo.size import Size


def gradient(size: tuple[int, int]) -> Image.Image:
    pixels = np.linspace(0, 255, size[0])[None, :, None] * np.linspace(0.3, 1, size[1])[:, None, None]
    return Image.fromarray(np.broadcast_to(pixels, (size[1], size[0], 3)).astype(np.uint8))


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (200, 33), (20, 31)])
@pytest.mark.parametrize("target", [(32, 32), (48, 32), (24, 40)])
@pytest.mark.parametrize("position", [0.0, 0.5, 0.999])
def test_crop_is_that_of_resizing_first(size: tuple[int, int], target: tuple[int, int], position: float) -> None:
    """Oracle: resize to cover, then cut, as torchvision does. Its edges see other neighbours: left out."""
    image = gradient(size)
    cut = crop_for(size, Size(target[1], target[0]), (position, position))
    whole = image.resize(cut.scaled, Image.Resampling.BILINEAR)
    left, top = (int(position * (cut.scaled[axis] - target[axis] + 1)) for axis in (0, 1))
    expected = np.asarray(whole.crop((left, top, left + target[0], top + target[1]))).astype(int)
    found = np.asarray(resize_crop(image, cut)).astype(int)
    assert found.shape == (target[1], target[0], 3)
    assert np.abs(found - expected)[2:-2, 2:-2].max() <= 2
    assert cut.offset == (left, top)


@pytest.mark.parametrize("target", [(32, 32), (48, 32), (24, 40), (720, 480)])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (7, 5000), (5000, 7), (1, 1), (719, 481), (720, 480)])
def test_it_covers_and_no_more(size: tuple[int, int], target: tuple[int, int]) -> None:
    scaled = crop_for(size, Size(target[1], target[0])).scaled
    assert all(scaled[axis] >= target[axis] for axis in (0, 1))
    assert any(scaled[axis] == target[axis] for axis in (0, 1))
    ratio = scaled[0] / size[0] / (scaled[1] / size[1])
    assert abs(ratio - 1) <= 1 / min(scaled)  # one pixel of rounding


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (1, 5000), (333, 250), (250, 333)])
@pytest.mark.parametrize("position", [(0.0, 0.0), (0.5, 0.5), (0.3, 0.9)])
def test_squares_are_cut_as_ever(size: tuple[int, int], position: tuple[float, float]) -> None:
    """The arithmetic of the first release, written out: caches and runs of squares must not change by a bit."""
    side, short = 32, min(size)
    box = []
    for axis in (0, 1):
        scaled = max(side * size[axis] // short, side)
        offset = int(position[axis] * (scaled - side + 1))
        box.append(
            (offset * size[axis] / scaled, min((offset * size[axis] / scaled) + side * size[axis] / scaled, size[axis]))
        )
    (left, right), (top, bottom) = box
    image = gradient(size)
    expected = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    found = resize_crop(image, crop_for(size, Size(side, side), position))
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_micro_conditioning_of_sdxl() -> None:
    """A picture of 200 x 100 (width, height) for 64 x 64: scaled to 128 x 64, cut at 16 from the left."""
    cut = crop_for((200, 100), Size(64, 64), (0.25, 0.7))
    assert cut == Crop((200, 100), (128, 64), (64, 64), (16, 0))
    straight, mirrored = cut.micro_conditioning()
    assert straight.tolist() == [100, 200, 0, 16]
    assert mirrored.tolist() == [100, 200, 0, 128 - 64 - 16]
    assert straight.dtype == torch.float32


@pytest.mark.parametrize("size", [(200, 100), (201, 100), (100, 333)])
@pytest.mark.parametrize("across", [0.0, 0.3, 0.5, 0.99])
def test_the_mirrored_cut_is_the_mirror_image_of_the_cut(size: tuple[int, int], across: float) -> None:
    """Cutting the mirrored, scaled picture at the place that is said gives the mirror image of the cut."""
    cut = crop_for(size, Size(64, 64), (across, across))
    columns = np.arange(cut.scaled[0])
    left, mirrored = int(cut.micro_conditioning()[0, 3]), int(cut.micro_conditioning()[1, 3])
    assert np.array_equal(columns[::-1][mirrored : mirrored + 64], columns[left : left + 64][::-1])
