"""From an encoded member of a pair to the tensor that a model of some size sees: image or video, cropped alike."""

from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from sipo.data.media.crop import CENTER, Crop, Position, crop_for, resize_crop
from sipo.data.media.decode_video import Frame, read_frames, select_frames
from sipo.data.media.kinds import MediaFile, require_kind
from sipo.data.media.pictures import MAX_PIXELS, decode, to_floats, to_tensor
from sipo.size import Size


class Member(NamedTuple):
    """One side of a pair, chosen or rejected: pixels or the VAE's moments, and `Crop.micro_conditioning`."""

    media: Tensor
    micro_conditioning: Tensor


def load_pixels(media: MediaFile, size: Size, position: Position = CENTER, max_pixels: int = MAX_PIXELS) -> Member:
    """Pixels `size.pixel_shape`, float32 in [-1, 1], and micro-conditioning (2, 4). Raises BadRow."""
    pixels, crops = load_bytes(media, size, position, max_pixels)
    return Member(to_floats(pixels), crops)


def load_bytes(media: MediaFile, size: Size, position: Position = CENTER, max_pixels: int = MAX_PIXELS) -> Member:
    """As `load_pixels`, with pixels in uint8: a quarter of what travels between processes.

    All frames of a video have the same crop, and are reduced as soon as they are decoded: full-size frames do not
    pile up.
    """
    if require_kind(media, size) == "image":
        image = decode(media, max_pixels)
        crop = crop_for(image.size, size, position)
        return Member(to_tensor(resize_crop(image, crop)).reshape(size.pixel_shape), crop.micro_conditioning())
    pixels = torch.empty(size.pixel_shape, dtype=torch.uint8)
    crop: Crop | None = None
    before: Frame | None = None
    with closing(read_frames(media, size.fps, max_pixels)) as frames:
        for number, frame in enumerate(select_frames(frames, size)):
            if frame is before:
                pixels[number] = pixels[number - 1]
                continue
            image = frame.picture()
            crop = crop or crop_for(image.size, size, position)
            pixels[number] = to_tensor(resize_crop(image, crop))
            before = frame
    assert crop is not None  # `select_frames` gives at least one frame or raises
    return Member(pixels, crop.micro_conditioning())
