"""VideoReward: Qwen2-VL-2B with a linear head on three special tokens; Liu et al. 2025, KwaiVGI/VideoAlign."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sipo.data.media.decode_video import measure, read_frames
from sipo.errors import UserError
from sipo.scorers import texts
from sipo.scorers.network import DTYPES, NetworkScorer
from sipo.scorers.preprocess import normalize
from sipo.scorers.qwen_vl import VIDEO, RewardModel, Seen, load_reward_model, new_size, patches_of, quiet
from sipo.scorers.video_reward_checkpoint import DIMENSIONS, Recipe, find_checkpoint, merge_lora, read_recipe
from sipo.scorers.weights import read_tensors

TOKENS = tuple(f"<|{dimension}_reward|>" for dimension in DIMENSIONS)
MIN_PIXELS = 128 * 28 * 28  # of a frame
LEAST_FRAMES, MOST_FRAMES = 4, 768


@dataclass(frozen=True)
class VideoReward(NetworkScorer):
    """VideoReward's Overall: the sum of visual quality, motion quality and text alignment, each normalised.

    Each is the head's value at its own special token, less the checkpoint's mean, divided by its deviation. It sees two
    frames a second. The three are details under VQ, MQ and TA.

    weights: the folder or hub repository with model_config.json and checkpoint-N/model.pth (5 GB). base: a folder or hub
    id with the config and tokenizer of Qwen2-VL-2B-Instruct; its weights are not read. Raises UserError for weights that
    do not load.
    """

    weights: str = "KlingTeam/VideoReward"
    base: str = "Qwen/Qwen2-VL-2B-Instruct"
    dtype: str = field(default="bfloat16", kw_only=True)
    name: ClassVar[str] = "videoreward"

    @cached_property
    def _loaded(self) -> tuple[Recipe, RewardModel]:
        config, path = find_checkpoint(self.weights)
        recipe = read_recipe(config)
        tensors = merge_lora(read_tensors(path), recipe.lora_scale, DTYPES[self.dtype], str(path))
        head = load_head(tensors, path)
        return recipe, load_reward_model(tensors, head, TOKENS, self.base, str(path), self.device, self.dtype)

    def score_files(self, files: list[Path], prompts: list[str]) -> list[Mapping]:
        """Of each video score, VQ, MQ and TA, or an error where it cannot be read."""
        recipe, model = self._loaded
        found: list[Mapping] = []
        seen: list[tuple[int, Seen, str]] = []
        for place, (file, prompt) in enumerate(zip(files, prompts, strict=True)):
            try:
                seen.append((place, see_video(file, recipe), prompt))
            except UserError as error:
                found.append({"error": str(error)})
            else:
                found.append({})
        if seen:
            asked = [texts.read("videoreward").replace("{prompt}", quiet(prompt)) for _, _, prompt in seen]
            values = own_values(model.values([each for _, each, _ in seen], asked, VIDEO))
            for (place, _, _), row in zip(seen, values, strict=True):
                found[place] = scored(row, recipe)
        return found


def scored(values: Tensor, recipe: Recipe) -> dict[str, float]:
    """Overall and its three parts, of the head's values (3,)."""
    norms = zip(DIMENSIONS, values.tolist(), recipe.norms, strict=True)
    parts = {dimension: (value - mean) / deviation for dimension, value, (mean, deviation) in norms}
    return {"score": sum(parts.values()), **parts}


def own_values(values: Tensor) -> Tensor:
    """(B, 3): a head of one output has one value a token (B, 3, 1); of one with three, token i takes output i."""
    return values[..., 0] if values.shape[-1] == 1 else values.diagonal(dim1=1, dim2=2)


def see_video(file: Path, recipe: Recipe) -> Seen:
    """The patches of its frames. Raises UserError where it cannot be decoded or has one frame alone."""
    length = measure(file)
    places = frame_places(length.num_frames, length.seconds, recipe)
    chosen = set(places)
    frames = {i: frame.picture() for i, frame in enumerate(read_frames(file)) if i in chosen}
    pixels = torch.from_numpy(np.stack([np.asarray(frames[i]) for i in places])).permute(0, 3, 1, 2)  # (T, 3, H, W)
    width, height = new_size((pixels.shape[3], pixels.shape[2]), MIN_PIXELS, recipe.max_pixels)
    return patches_of(torch.stack([normalize(frame) for frame in resize(pixels, height, width)]))


def frame_places(num_frames: int, seconds: Fraction, recipe: Recipe) -> list[int]:
    """Which frames it sees: an even number, `fps` to the second (at least 4 if the video has as many), evenly spaced.

    Raises UserError for a video of one frame.
    """
    if num_frames < 2:
        raise UserError("a video of one frame; VideoReward compares frames, and needs two or more")
    if recipe.num_frames is not None:
        count = min(_even(Fraction(recipe.num_frames)), num_frames)
    else:
        most = min(MOST_FRAMES, num_frames) // 2 * 2
        count = _even(min(max(seconds * Fraction(recipe.fps), Fraction(LEAST_FRAMES)), Fraction(most)))
    return torch.linspace(0, num_frames - 1, count).round().long().tolist()


def _even(count: Fraction) -> int:
    """The nearest even number, and at a tie the one whose half is even."""
    return 2 * round(count / 2)


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, 3, height, width) in [0, 1] of bytes (T, 3, H, W): torchvision's antialiased bicubic, back on whole levels."""
    resized = interpolate(frames.float(), (height, width), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255).round() / 255


def load_head(tensors: Mapping[str, Tensor], source: object) -> nn.Linear:
    """The tensor rm_head.weight as a layer without bias in float32. Raises UserError where it is none of one or three outputs."""
    weight = tensors.get("rm_head.weight")
    if weight is None or weight.ndim != 2 or len(weight) not in (1, len(DIMENSIONS)):
        found = "missing" if weight is None else f"of shape {tuple(weight.shape)}"
        raise UserError(f"weights: {source} is not VideoReward: rm_head.weight is {found}; expected (1, D) or (3, D)")
    head = nn.Linear(weight.shape[1], len(weight), bias=False)
    head.load_state_dict({"weight": weight.float()})
    return head
