"""Sources as the pictures that they were: what a pipeline's own image processor takes."""

from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor


def as_pictures(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] -> the pictures, in 8 bits, that they were."""
    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy((pixels + 1) / 2))
