"""Preprocessing against transcriptions of the reference transforms in PIL alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from sipo.scorers.clip import processor_pixels
from sipo.scorers.preprocess import crop_pixels, pad_pixels

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
SIZES = [(71, 40), (40, 71), (33, 33), (9, 13), (32, 32), (32, 20), (100, 33), (33, 100), (512, 300)]


def picture(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(size)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 20, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def normalized(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(((pixels / 255 - MEAN) / STD).transpose(2, 0, 1), dtype=torch.float32)


def cropped(image: Image.Image, size: int, start) -> torch.Tensor:
    """Shorter side to `size`, longer one rounded down; then the middle, whose first pixel `start` says."""
    width, height = image.size
    scaled = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    pixels = np.asarray(image.resize(scaled, Image.Resampling.BICUBIC), dtype=np.float64)
    left, top = start(scaled[0] - size), start(scaled[1] - size)
    return normalized(pixels[top : top + size, left : left + size])


def padded(image: Image.Image, size: int) -> torch.Tensor:
    """Longer side to `size`, each channel resized as floats; black around, the larger half below and to the right."""
    width, height = image.size
    scale = size / max(width, height)
    scaled = round(width * scale), round(height * scale)
    canvas = np.zeros((size, size, 3))
    left, top = (size - scaled[0]) // 2, (size - scaled[1]) // 2
    for channel, band in enumerate(image.split()):
        resized = np.asarray(band.convert("F").resize(scaled, Image.Resampling.BICUBIC))
        canvas[top : top + scaled[1], left : left + scaled[0], channel] = resized
    return normalized(canvas)


@pytest.mark.parametrize("size", SIZES)
def test_pickscore_and_clip_crop_as_their_processor_does(size):
    expected = cropped(picture(size), 32, lambda rest: rest // 2)
    torch.testing.assert_close(processor_pixels(picture(size), 32), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_image_reward_and_aesthetics_crop_as_torchvision_does(size):
    expected = cropped(picture(size), 32, lambda rest: round(rest / 2.0))
    torch.testing.assert_close(crop_pixels(picture(size), 32), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_hps_pads(size):
    torch.testing.assert_close(pad_pixels(picture(size), 32), padded(picture(size), 32), rtol=0, atol=2e-5)


def test_hps_loses_no_edge_and_pads_with_black():
    image = Image.new("RGB", (64, 16), (255, 255, 255))
    pixels = pad_pixels(image, 32)
    black, white = torch.tensor(-MEAN / STD), torch.tensor((1 - MEAN) / STD)
    rows = pixels[:, :, 0].T.double()  # (32, 3)
    assert [i for i in range(32) if torch.allclose(rows[i], white, atol=1e-5)] == list(range(12, 20))
    assert torch.allclose(rows[[0, 11, 20, 31]], black.expand(4, 3), atol=1e-6)


def test_hps_without_antialiasing_is_another_picture():
    image = picture((512, 300))
    assert (pad_pixels(image, 32, antialias=False) - pad_pixels(image, 32)).abs().max() > 0.1


def test_grey_pictures_become_rgb():
    for preprocess in (processor_pixels, crop_pixels, pad_pixels):
        assert preprocess(picture((40, 40)).convert("L"), 32).shape == (3, 32, 32)
