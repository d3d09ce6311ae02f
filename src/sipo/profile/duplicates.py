"""Near-duplicates: media that look alike however they are encoded, found without comparing every two.

A picture's mark is a perceptual hash (pHash: the signs of low frequencies of a 32 x 32 grey picture against their median)
and the mean colours of 4 x 4 blocks. Two are near-duplicates where at most `BITS` of the 63 signs differ, and the colours
by at most `LEVELS` of 255 (root mean square).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn

BITS, LEVELS = 4, 6.0
BANDS = BITS + 1  # of the hash: two that differ in BITS places are equal in one of them
CHUNK = 2**22  # comparisons at once, to bound memory


@dataclass(frozen=True)
class Mark:
    """`hash`: 63 bits. `colours`: (48,) uint8."""

    hash: int
    colours: bytes


def mark_of(image: Image.Image) -> Mark:
    """Of an RGB picture of any size."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    waves = np.asarray(dctn(grey, norm="ortho"))[:8, :8].flatten()[1:]  # without the mean
    signs = np.where(np.abs(waves - np.median(waves)) < 1e-6, False, waves > np.median(waves))  # none in a flat picture
    colours = image.convert("RGB").resize((4, 4), Image.Resampling.BOX)
    return Mark(int("".join("01"[bit] for bit in signs.astype(int)), 2), colours.tobytes())


def clusters(marks: Sequence[Mark]) -> np.ndarray:
    """(N,) numbers: near-duplicates, and near-duplicates of these, share one."""
    hashes = np.array([mark.hash for mark in marks], dtype=np.uint64)
    colours = np.frombuffer(b"".join(mark.colours for mark in marks), dtype=np.uint8).reshape(len(marks), -1)
    both = np.concatenate([hashes.astype(">u8").view(np.uint8).reshape(-1, 8), colours], axis=1)
    _, first, same = np.unique(both, axis=0, return_index=True, return_inverse=True)  # equal marks count once
    parents = list(range(len(first)))
    for one, other in _near(hashes[first], colours[first].astype(np.int32)):
        a, b = _root(parents, one), _root(parents, other)
        parents[max(a, b)] = min(a, b)
    roots = np.array([_root(parents, item) for item in range(len(parents))], dtype=np.int64)
    return roots[same.reshape(-1)]


def _near(hashes: np.ndarray, colours: np.ndarray) -> Iterator[tuple[int, int]]:
    """All pairs of places whose marks are near each other; a pair may come more than once."""
    width = -(-63 // BANDS)
    for band in range(BANDS):
        part = (hashes >> np.uint64(band * width)) & np.uint64(2**width - 1)
        order = np.argsort(part, kind="stable")
        edges = np.flatnonzero(np.diff(part[order])) + 1
        for group in np.split(order, edges):
            rows = max(CHUNK // len(group), 1)
            for start in range(0, len(group) - 1, rows):
                some, rest = group[start : start + rows], group[start:]
                one, other = np.nonzero(np.bitwise_count(hashes[some, None] ^ hashes[None, rest]) <= BITS)
                keep = one < other  # `rest` begins with `some`
                one, other = some[one[keep]], rest[other[keep]]
                alike = ((colours[one] - colours[other]) ** 2).mean(1) <= LEVELS**2
                yield from zip(one[alike].tolist(), other[alike].tolist(), strict=True)


def _root(parents: list[int], item: int) -> int:
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item
