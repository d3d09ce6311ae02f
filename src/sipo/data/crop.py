"""Scale a picture to cover a size, and cut out the rest; and say where the cut lies, as SDXL is told."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from sipo.size import Size

Position = tuple[float, float]  # of a crop, across and down, in [0, 1); 0.5 is the centre
CENTER: Position = (0.5, 0.5)


@dataclass(frozen=True)
class Cut:
    """What becomes of a picture's sides. Every field is (width, height) or (across, down), in pixels.

    The tighter side is scaled to its target, the other in proportion (rounded down), and `offset` is where the crop
    begins after scaling: torchvision's Resize and crop, which the reference implementation uses.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int]

    def geometry(self) -> Tensor:
        """(2, 4) float32: original height and width, crop top and left; of the picture and of its mirror image.

        As diffusers' SDXL scripts define them: the original size before scaling, the crop in the scaled picture.
        """
        (width, height), (left, top) = self.original, self.offset
        mirrored = self.scaled[0] - self.size[0] - left
        return torch.tensor([[height, width, top, left], [height, width, top, mirrored]], dtype=torch.float32)


def cut_for(original: tuple[int, int], size: Size, position: Position = CENTER) -> Cut:
    """How a picture of `original` (width, height) covers `size`. A picture of any size and aspect works."""
    target = size.width, size.height
    tight = 0 if original[1] * target[0] >= original[0] * target[1] else 1  # the axis that is scaled exactly
    scaled = tuple(max(target[tight] * original[axis] // original[tight], target[axis]) for axis in (0, 1))
    offset = tuple(int(position[axis] * (scaled[axis] - target[axis] + 1)) for axis in (0, 1))
    return Cut(original, scaled, target, offset)


def resize_crop(image: Image.Image, cut: Cut) -> Image.Image:
    """The cut, bilinear and antialiased; one resize, which reads only what is kept.

    Cutting first matters: a picture of 1 x 5000 pixels must not become one of 512 x 2,560,000 on the way.
    """
    box, right = [0.0, 0.0], [0.0, 0.0]
    for axis, side in enumerate(cut.original):
        box[axis] = cut.offset[axis] * side / cut.scaled[axis]
        right[axis] = min(box[axis] + cut.size[axis] * side / cut.scaled[axis], side)
    return image.resize(cut.size, Image.Resampling.BILINEAR, box=(*box, *right))
