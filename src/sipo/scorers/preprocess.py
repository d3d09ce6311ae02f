"""Pictures as reward models take them: torchvision's transforms of the reference code, without torchvision.

All return (3, size, size) float32, normalised by CLIP's mean and standard deviation. The processor of transformers, which
PickScore and the CLIP score use, differs from `crop_pixels` in one point: where an odd number of pixels is cropped, it
crops the smaller half on the left and top, torchvision rounds to an even number.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def crop_pixels(image: Image.Image, size: int) -> Tensor:
    """The shorter side to `size` (bicubic, 8 bits), then the square in the middle: openai/CLIP, THUDM/ImageReward."""
    width, height = image.size
    short = min(width, height)
    new = (size, int(size * height / short)) if width <= height else (int(size * width / short), size)
    resized = image.convert("RGB") if new == image.size else image.convert("RGB").resize(new, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in resized.size)
    return normalize(to_unit(resized.crop((left, top, left + size, top + size))))


def pad_pixels(image: Image.Image, size: int, antialias: bool = True) -> Tensor:
    """The longer side to `size` (bicubic on floats, so edges may overshoot), then black around: tgxs002/HPSv2.

    antialias: as torchvision does it from 0.17 on. Older versions did not on tensors, and the published numbers are of
    that time; False reproduces them.
    """
    pixels = to_unit(image.convert("RGB"))
    height, width = pixels.shape[1:]
    scale = size / max(height, width)
    if scale != 1:
        new = [max(round(side * scale), 1) for side in (height, width)]
        pixels = interpolate(pixels[None], new, mode="bicubic", align_corners=False, antialias=antialias)[0]
    below, beside = (size - side for side in pixels.shape[1:])
    pixels = pad(pixels, (beside // 2, beside - beside // 2, below // 2, below - below // 2))
    return normalize(pixels)


def to_unit(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1] of an RGB picture."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def normalize(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
