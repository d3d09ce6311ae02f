"""CLIP in transformers: unit features of pictures and texts, shared by the scorers that are built on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from sipo.scorers.base import Medium, one_picture
from sipo.scorers.network import DTYPES, resolve_device
from sipo.scorers.weights import load_model, load_tokenizer

VIT_L = "openai/clip-vit-large-patch14"
VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@dataclass(frozen=True)
class Clip:
    """A CLIP model in evaluation mode, and its tokenizer (None if only pictures are scored)."""

    model: Any  # a CLIPModel, whose types the decorators of transformers hide
    tokenizer: CLIPTokenizer | None = None

    @property
    def size(self) -> int:
        """Pixels of a side of its input."""
        return self.model.config.vision_config.image_size

    @torch.inference_mode()
    def image_features(self, images: Sequence[Medium], preprocess: Callable[[Image.Image, int], Tensor]) -> Tensor:
        """(B, D) float32, of length 1."""
        pixels = torch.stack([preprocess(one_picture(image), self.size) for image in images])
        pixels = pixels.to(self.model.device, self.model.dtype)
        return normalize(self.model.get_image_features(pixel_values=pixels).pooler_output.float(), dim=-1)

    @torch.inference_mode()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """(B, D) float32, of length 1. Texts are truncated to the model's length, 77 tokens."""
        if self.tokenizer is None:
            raise ValueError("this CLIP was loaded without a tokenizer")
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        return normalize(self.model.get_text_features(**tokens.to(self.model.device)).pooler_output.float(), dim=-1)

    def cosine(
        self, images: Sequence[Medium], prompts: Sequence[str], preprocess: Callable[[Image.Image, int], Tensor]
    ) -> Tensor:
        """(B,) cosines of each picture with its own prompt."""
        return (self.image_features(images, preprocess) * self.text_features(prompts)).sum(-1)


def load_clip(weights: str, device: str, dtype: str, tokenizer: str | None = None) -> Clip:
    """A CLIP in transformers' layout, from a folder or the hub. Raises UserError."""
    model = load_model(CLIPModel, weights, DTYPES[dtype], weights).to(resolve_device(device))
    return Clip(model, load_tokenizer(CLIPTokenizer, tokenizer) if tokenizer else None)


def processor_pixels(image: Image.Image, size: int) -> Tensor:
    """(3, size, size) as by transformers' CLIP processor: shorter side to `size`, the square in the middle."""
    return _processor(size)(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


@cache
def _processor(size: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
