"""From an encoded member of a pair to the tensor that a model of some size sees: image or video, cut alike."""

from contextlib import closing

import torch
from torch import Tensor

from sipo.data.media.crop import CENTER, Cut, Position, cut_for, resize_crop
from sipo.data.media.pictures import MAX_PIXELS, Kind, decode, media_kind, named, to_tensor
from sipo.data.media.video import Frame, read_frames, sample
from sipo.data.pairs.rows import BadRow, Media
from sipo.size import Size


def load_pixels(
    media: Media, size: Size, crop: Position = CENTER, max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, Tensor]:
    """Pixels `size.pixel_shape`, float32 in [-1, 1], and geometry (2, 4): see `Cut.geometry`. Raises BadRow.

    Every frame of a video is cut alike, and reduced as soon as it is decoded: full-size frames do not pile up.
    """
    if require_kind(media, size) == "image":
        image = decode(media, max_pixels)
        cut = cut_for(image.size, size, crop)
        return to_tensor(resize_crop(image, cut)).reshape(size.pixel_shape), cut.geometry()
    pixels = torch.empty(size.pixel_shape)
    cut: Cut | None = None
    before: Frame | None = None
    with closing(read_frames(media, size.fps, max_pixels)) as frames:
        for number, frame in enumerate(sample(frames, size)):
            if frame is before:
                pixels[number] = pixels[number - 1]
                continue
            image = frame.picture()
            cut = cut or cut_for(image.size, size, crop)
            pixels[number] = to_tensor(resize_crop(image, cut))
            before = frame
    assert cut is not None  # `sample` gives at least one frame or raises
    return pixels, cut.geometry()


def require_kind(media: Media, size: Size | None) -> Kind:
    """What the medium is. Raises BadRow where a model of that size cannot take it; one picture is a video of a frame."""
    kind = media_kind(media)
    if size and kind != "image" and not size.is_video:
        raise BadRow(f"{named(media)} is a video; the model makes images", "mismatched")
    if size and kind == "image" and size.num_frames > 1:
        raise BadRow(f"{named(media)} is an image; the model makes videos of {size.num_frames} frames", "too_short")
    return kind
