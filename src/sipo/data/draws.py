"""Random draws of the data: crop and flip of (seed, epoch, pair id), order of (seed, epoch); never of the rank."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

CropMode = Literal["center", "random"]


def uniforms(count: int, *key: object) -> tuple[float, ...]:
    """`count` (at most 8) numbers in [0, 1) that depend on `key` alone, on every platform and version."""
    hashed = hashlib.blake2b(
        "\x1f".join(map(str, key)).encode("utf-8", "surrogatepass"), digest_size=8 * count
    ).digest()
    return tuple((int.from_bytes(hashed[8 * i : 8 * i + 8], "little") >> 11) * 2.0**-53 for i in range(count))


@dataclass(frozen=True)
class Augmentation:
    """What chance decides about a pair in one epoch; both members share it."""

    crop: tuple[float, float]  # position of the crop, across and down, in [0, 1)
    flip: bool
    empty_prompt: bool


def draw_augmentation(seed: int, epoch: int, pair_id: str, flip: bool, prompt_dropout: float) -> Augmentation:
    """Crop and flip are drawn once per pair and epoch. So is prompt dropout, as in the reference implementation
    (SalesforceAIResearch/DiffusionDPO:train.py, `proportion_empty_prompts`)."""
    across, down, mirror, drop = uniforms(4, "pair", seed, epoch, pair_id)
    return Augmentation((across, down), flip and mirror < 0.5, drop < prompt_dropout)


@functools.lru_cache(maxsize=2)
def epoch_order(num_pairs: int, seed: int, epoch: int) -> np.ndarray:
    """(num_pairs,) permutation of the pairs in this epoch."""
    hashed = hashlib.blake2b(f"order\x1f{seed}\x1f{epoch}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashed, "little"))).permutation(num_pairs)
