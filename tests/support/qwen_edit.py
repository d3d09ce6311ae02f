"""Plain diffusers' pipelines of Qwen-Image-Edit, without torchvision: the processor and the positions of pictures by their published formulas."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    QwenImageTransformer2DModel,
)
from PIL import Image
from torch import Tensor, nn
from transformers import BatchFeature, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

PATCH, MERGED = 14, 2
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])  # CLIP's


def patches(picture: Image.Image) -> tuple[Tensor, tuple[int, int]]:
    """(rows columns, 3 x 2 x 14 x 14) and (rows, columns), after the section on dynamic resolution of Qwen2-VL's report and its
    processor: sides are multiples of 28, the picture is two equal frames, and patches of a block of 2 x 2 follow one another."""
    block = PATCH * MERGED
    width, height = (max(round(side / block), 1) * block for side in picture.size)
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), float) / 255
    pixels = (pixels - MEAN) / STD
    found = [
        np.stack(
            [pixels[top + i : top + i + PATCH, left + j : left + j + PATCH].transpose(2, 0, 1)] * 2, axis=1
        ).ravel()
        for top in range(0, height, block)
        for left in range(0, width, block)
        for i in range(0, block, PATCH)
        for j in range(0, block, PATCH)
    ]
    return torch.tensor(np.array(found), dtype=torch.float32), (height // PATCH, width // PATCH)


class Published:
    """What the pipelines call as their processor, of one text and one picture."""

    def __init__(self, tokenizer: Qwen2Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: list[str], images: Any, **_: Any) -> BatchFeature:
        (picture,) = images if isinstance(images, list) else [images]
        values, (rows, columns) = patches(picture)
        tokens = "<|image_pad|>" * (rows // MERGED * (columns // MERGED))
        ids = self.tokenizer([each.replace("<|image_pad|>", tokens) for each in text], return_tensors="pt")
        grid = torch.tensor([[1, rows, columns]])
        return BatchFeature({**ids, "pixel_values": values, "image_grid_thw": grid})


def positions(ids: list[int], picture: int, rows: int, columns: int) -> Tensor:
    """(3, 1, L): time, row and column of each token, after Qwen2-VL's report: of texts 0, 1, 2, ... on all axes; of a picture the
    place in it, from where the text ended; what follows begins after the largest of them."""
    found, following, seen = [], 0, 0
    for token in ids:
        if token == picture:
            row, column = divmod(seen, columns)
            found.append((following, following + row, following + column))
            seen += 1
            if seen == rows * columns:
                following += max(rows, columns)
        else:
            found.append((following,) * 3)
            following += 1
    return torch.tensor(found).T.unsqueeze(1)


def _place(encoder: nn.Module, args: tuple, keys: dict) -> tuple:
    grid = (keys["image_grid_thw"][0, 1:] // MERGED).tolist()
    return args, keys | {"position_ids": positions(keys["input_ids"][0].tolist(), encoder.config.image_token_id, *grid)}


def plain(folder: Path | str, placed: bool = True) -> Any:
    """diffusers' own pipeline of a tiny checkpoint. placed: False leaves positions to the pipeline and transformers."""
    folder = Path(folder)
    cls = getattr(diffusers, json.loads((folder / "model_index.json").read_text())["_class_name"])
    tokenizer = Qwen2Tokenizer.from_pretrained(folder / "tokenizer")
    encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder").eval()
    if placed:
        encoder.register_forward_pre_hook(_place, with_kwargs=True)
    pipeline: DiffusionPipeline = cls(
        FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        AutoencoderKLQwenImage.from_pretrained(folder / "vae"),
        encoder, tokenizer, Published(tokenizer), QwenImageTransformer2DModel.from_pretrained(folder / "transformer"),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
