"""Seeded clips of the moving world with their captions, flawless or flawed, and a pool of them as latents."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from sipo.files import write_atomic
from sipo.mini.cells import what_stands_where
from sipo.mini.networks import Autoencoder
from sipo.mini.recipe import Flaws
from sipo.mini.tokenizer import tokenize
from sipo.mini.video.clips import FRAMES, Clip, render_clip, sample_clip
from sipo.mini.video.flaws import degrade, wrong_attribute, wrong_clip
from sipo.mini.video.networks import video_tokenizer
from sipo.mini.video.recipe import MIXTURE, VideoRecipe
from sipo.mini.video.wording import all_prompts

_PROMPTS = all_prompts()


def draw_clip(rng: np.random.Generator, mixture: Mapping[str, float] = MIXTURE) -> tuple[Clip, dict]:
    """A clip and the entry of its prompt; `mixture`: the share of each category."""
    group = _PROMPTS[rng.choice(list(mixture), p=list(mixture.values()))]
    prompt = group[rng.integers(len(group))]
    return sample_clip(prompt, rng), prompt


def draw_clips(
    n: int, rng: np.random.Generator, flaws: Flaws | None = None, mixture: Mapping[str, float] = MIXTURE
) -> tuple[np.ndarray, list[str], list[Clip]]:
    """`n` rendered clips as (n, FRAMES, 64, 64, 3) uint8, their captions, with the shares of `flaws` (default: none), and the
    clips themselves."""
    flaws = flaws or Flaws()
    videos, captions, clips = [], [], []
    for _ in range(n):
        clip, prompt = draw_clip(rng, mixture)
        video = render_clip(clip, rng)
        caption, degraded = rng.random(2)
        if degraded < flaws.degraded:
            video = degrade(video, rng)
        if caption < flaws.wrong_attribute:
            prompt = wrong_attribute(prompt, clip, rng)
        elif caption < flaws.wrong_attribute + flaws.wrong_scene:
            prompt = wrong_clip(prompt, clip, rng)
        videos.append(video)
        captions.append(prompt["prompt"])
        clips.append(clip)
    return np.stack(videos), captions, clips


def to_pixels(videos: np.ndarray) -> Tensor:
    """uint8 (B, F, H, W, 3) -> float32 (B, 3, F, H, W) in [-1, 1], as the autoencoder takes them."""
    return torch.from_numpy(videos).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def what_moves_where(clip: Clip) -> Tensor:
    """(16, 3) int64: what stands in each cell in the first, the middle and the last frame."""
    frames = (0, FRAMES // 2, FRAMES - 1)
    return torch.from_numpy(np.stack([what_stands_where(clip.scene(frame)) for frame in frames], axis=1))


@torch.no_grad()
def encode_pool(
    path: Path, vae: Autoencoder, recipe: VideoRecipe, flaws: Flaws, device: str, autocast: bool
) -> dict[str, Tensor]:
    """The recipe's N clips, made once, then read: scaled latents (N, 5, 6, 16, 16) float16, frames first, token ids (N, 32)
    int64 of the captions, and what moves in the cells (N, 16, 3) int64."""
    if not path.is_file():
        tokenizer, latents, tokens, cells = video_tokenizer(), [], [], []
        for part in range(0, recipe.pool_size, 50):
            rng, size = np.random.default_rng([recipe.seed, 3, part]), min(50, recipe.pool_size - part)
            videos, captions, clips = draw_clips(size, rng, flaws, recipe.mixture)
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                mean = vae.encode(to_pixels(videos).to(device)).latent_dist.mean.transpose(1, 2)
            latents.append((mean.float() * vae.config.scaling_factor).half().cpu().contiguous())
            tokens.append(tokenize(tokenizer, captions))
            cells += [what_moves_where(clip) for clip in clips]
        write_atomic(
            path, save({"latents": torch.cat(latents), "tokens": torch.cat(tokens), "cells": torch.stack(cells)})
        )
    return load_file(path)
