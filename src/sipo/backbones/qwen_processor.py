"""What makes the inputs of Qwen2.5-VL of texts and pictures, by Pillow and numpy: transformers' own needs torchvision, for videos."""

import inspect
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import BatchFeature, ProcessorMixin, Qwen2Tokenizer, Qwen2VLImageProcessorPil

PICTURE = "<|image_pad|>"  # in a text, the place of a picture


class PictureProcessor(ProcessorMixin):
    """Stands in for `Qwen2VLProcessor` in a pipeline. folder: of that one's files, which `save_pretrained` copies as they are."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.tokenizer = Qwen2Tokenizer.from_pretrained(self.folder)
        self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(self.folder)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, text: list[str], images: Image.Image | Sequence[Image.Image], padding: bool = True, **_: Any
    ) -> BatchFeature:
        """`input_ids`, `attention_mask` (B, L), with as many tokens for a picture as it has blocks of 2 x 2 patches;
        `pixel_values` (patches, 1176), `image_grid_thw` (pictures, 3)."""
        pictures = self.image_processor(images=images, return_tensors="pt")
        numbers = iter((pictures["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2).tolist())
        texts = [re.sub(re.escape(PICTURE), lambda _: PICTURE * next(numbers), each) for each in text]
        tokens = self.tokenizer(texts, padding=padding, return_tensors="pt")
        return BatchFeature({**tokens, **pictures})

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        shutil.copytree(self.folder, save_directory, dirs_exist_ok=True)


def place_pictures(encoder: Any, args: tuple, keys: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """A hook before the forward of Qwen2.5-VL: tells which tokens are a picture's, so that these get positions by row and column.

    Until version 4 transformers found that in `input_ids`; since, a caller that does not tell gets positions of a text,
    0, 1, 2, ..., without a word (huggingface/diffusers, issue 14194).
    """
    if "mm_token_type_ids" in inspect.signature(type(encoder).forward).parameters:
        keys.setdefault("mm_token_type_ids", (keys["input_ids"] == encoder.config.image_token_id).long())
    return args, keys
