"""Seeded pictures of the world with their captions, flawless or flawed, and a pool of them as latents."""

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from sipo.files import write_atomic
from sipo.geneval.vocabulary import clause, placed
from sipo.mini.cells import what_stands_where
from sipo.mini.flaws import degrade, wrong_attribute, wrong_scene
from sipo.mini.networks import Autoencoder
from sipo.mini.recipe import MIXTURE, Flaws, OfPictures
from sipo.mini.scenes import sample_scene
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.wording import WORLD, all_prompts
from sipo.mini.world import Scene, render

_PROMPTS = all_prompts() | {
    "colored_position": [
        placed(clause(a, c), relation, clause(b, d))
        for a, b in permutations(WORLD.objects, 2)
        for c, d in permutations(WORLD.colors, 2)
        for relation in WORLD.relations
    ]
}


def draw_scene(rng: np.random.Generator, mixture: Mapping[str, float] = MIXTURE) -> tuple[Scene, dict]:
    """A scene and the entry of its prompt; `mixture`: the share of each category."""
    category = rng.choice(list(mixture), p=list(mixture.values()))
    prompt = _PROMPTS[category][rng.integers(len(_PROMPTS[category]))]
    return sample_scene(prompt, rng), prompt


def draw_pictures(
    n: int, rng: np.random.Generator, flaws: Flaws | None = None, mixture: Mapping[str, float] = MIXTURE
) -> tuple[np.ndarray, list[str], list[Scene]]:
    """`n` rendered scenes as (n, 64, 64, 3) uint8, their captions, with the shares of `flaws` (default: none), and they."""
    flaws = flaws or Flaws()
    pictures, captions, scenes = [], [], []
    for _ in range(n):
        scene, prompt = draw_scene(rng, mixture)
        picture = np.asarray(render(scene, rng))
        caption, degraded = rng.random(2)
        if degraded < flaws.degraded:
            picture = degrade(picture, rng)
        if caption < flaws.wrong_attribute:
            prompt = wrong_attribute(prompt, scene, rng)
        elif caption < flaws.wrong_attribute + flaws.wrong_scene:
            prompt = wrong_scene(prompt, scene, rng)
        pictures.append(picture)
        captions.append(prompt["prompt"])
        scenes.append(scene)
    return np.stack(pictures), captions, scenes


def to_pixels(pictures: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def encode_pool(
    path: Path, vae: Autoencoder, recipe: OfPictures, flaws: Flaws, device: str, autocast: bool
) -> dict[str, Tensor]:
    """The recipe's N pictures, made once, then read: scaled latents (N, 4, 16, 16) float16, token ids (N, 32) int64 of the
    captions, and what stands in the cells of the pictures (N, 16) int64.
    """
    if not path.is_file():
        tokenizer, latents, tokens, cells = make_tokenizer(), [], [], []
        for part in range(0, recipe.pool_size, 250):
            rng, size = np.random.default_rng([recipe.seed, 3, part]), min(250, recipe.pool_size - part)
            pictures, captions, scenes = draw_pictures(size, rng, flaws, recipe.mixture)
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                mean = vae.encode(to_pixels(pictures).to(device)).latent_dist.mean
            latents.append((mean.float() * vae.config.scaling_factor).half().cpu().contiguous())
            tokens.append(tokenize(tokenizer, captions))
            cells += [torch.from_numpy(what_stands_where(scene)) for scene in scenes]
        write_atomic(
            path, save({"latents": torch.cat(latents), "tokens": torch.cat(tokens), "cells": torch.stack(cells)})
        )
    return load_file(path)
