"""ImageReward: BLIP-large reading the prompt with the picture in view; Xu et al. 2023, THUDM/ImageReward."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from transformers import BertTokenizer

from sipo.scorers.base import Medium, Metadata, in_batches, one_picture
from sipo.scorers.blip import Blip, load_blip
from sipo.scorers.network import DTYPES, NetworkScorer, resolve_device
from sipo.scorers.preprocess import crop_pixels
from sipo.scorers.weights import companion, find_file, load_tokenizer, read_tensors

FILES = ("ImageReward.pt", "ImageReward.safetensors")
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw rewards, published with the model
TOKENS = 35


@dataclass(frozen=True)
class ImageReward(NetworkScorer):
    """ImageReward: (head(text encoder's first token) - 0.1672) / 1.0333: about -2.3 to 2, 0 the mean of its own data.

    weights: the official checkpoint (or a .safetensors of the same names), a folder with it, or a hub id. tokenizer:
    BERT's, folder or hub id; default: in the weights' folder, else bert-base-uncased. The head computes in float32.
    Raises UserError for weights that do not load, at the first call.
    """

    weights: str = "THUDM/ImageReward"
    tokenizer: str | None = None
    name: ClassVar[str] = "imagereward"

    @cached_property
    def _loaded(self) -> tuple[Blip, BertTokenizer]:
        path = find_file(self.weights, *FILES)
        blip = load_blip(read_tensors(path), path, DTYPES[self.dtype], resolve_device(self.device))
        source = companion(self.weights, self.tokenizer, "google-bert/bert-base-uncased")
        return blip, load_tokenizer(BertTokenizer, source)

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return in_batches(self.batch_size, self._batch, media, prompts)

    def _batch(self, media: list[Medium], prompts: list[str]) -> list[float]:
        blip, tokenizer = self._loaded
        size = int(blip.vision.config.image_size)  # pyright: ignore[reportArgumentType]  # no rectangles here
        pixels = torch.stack([crop_pixels(one_picture(image), size) for image in media])
        tokens = tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )  # fmt: skip
        return ((blip.reward(pixels, tokens.input_ids, tokens.attention_mask) - MEAN) / STD).tolist()
