"""Boxes as networks give them, to boxes in pixels of the picture."""

import torch
from torch import Tensor


def to_pixels(boxes: Tensor, canvas: tuple[int, int], picture: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(N, 4) as centre and size in shares of `canvas` -> (N, 4) x0, y0, x1, y1 in pixels, cut off at the picture's rim.

    `canvas` and `picture` are (width, height) in pixels; they differ where the network saw a padded picture. The second
    result (N,) says which boxes have an area within the picture.
    """
    center, size = boxes.split(2, dim=-1)
    corners = torch.cat([center - size / 2, center + size / 2], dim=-1) * torch.tensor([*canvas, *canvas])
    inside = corners.clamp(min=0).minimum(torch.tensor([*picture, *picture], dtype=corners.dtype))
    return inside, (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
