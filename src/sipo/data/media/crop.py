"""Scale a picture to cover a size and crop what exceeds it, with the micro-conditioning that SDXL derives from both."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from sipo.size import Size

Position = tuple[float, float]  # of a crop, across and down, in [0, 1); 0.5 is the centre
CENTER: Position = (0.5, 0.5)


@dataclass(frozen=True)
class Crop:
    """How a picture is scaled and cropped. Every field is (width, height) or (across, down), in pixels.

    The tighter side is scaled to its target, the other in proportion (rounded down), and `offset` is where the crop
    begins after scaling: torchvision's Resize and crop, which the reference implementation uses.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int]

    def span(self, axis: int) -> tuple[float, float]:
        """Start and end of the crop on the original picture."""
        side, scaled = self.original[axis], self.scaled[axis]
        start = self.offset[axis] * side / scaled
        return start, min(start + self.size[axis] * side / scaled, side)

    def micro_conditioning(self) -> Tensor:
        """(2, 4) float32: original height and width, crop top and left; of the picture and of its mirror image.

        As diffusers' SDXL scripts define them: the original size before scaling, the crop in the scaled picture.
        """
        (width, height), (left, top) = self.original, self.offset
        mirrored = self.scaled[0] - self.size[0] - left
        return torch.tensor([[height, width, top, left], [height, width, top, mirrored]], dtype=torch.float32)


def crop_for(original: tuple[int, int], size: Size, position: Position = CENTER) -> Crop:
    """How a picture of `original` (width, height), of any size and aspect, covers `size`."""
    target = size.width, size.height
    tight = 0 if original[1] * target[0] >= original[0] * target[1] else 1  # the axis that is scaled exactly
    width, height = (max(target[tight] * original[axis] // original[tight], target[axis]) for axis in (0, 1))
    offset = int(position[0] * (width - target[0] + 1)), int(position[1] * (height - target[1] + 1))
    return Crop(original, (width, height), target, offset)


def resize_crop(image: Image.Image, crop: Crop) -> Image.Image:
    """Bilinear and antialiased; one resize, which reads only what is kept.

    Cropping first matters: a picture of 1 x 5000 pixels must not become one of 512 x 2,560,000 on the way.
    """
    (left, right), (top, bottom) = crop.span(0), crop.span(1)
    return image.resize(crop.size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
