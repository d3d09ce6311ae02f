"""Randomness as a function of (seed, optimizer step, the pair's index in the global batch, stream) and nothing else.

So a resumed run draws what the unbroken one would have drawn, and neither the number of processes nor the split into
micro-batches changes the gradients.

Draws that are fixed for all steps are a function of (seed, pair id, number of the draw, stream) instead: where a `step`
is taken, the ids of the pairs may stand, and the numbers of their draws where `slots` are.
"""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def pair_generator(seed: int, step: int | str, slot: int, stream: str) -> torch.Generator:
    """A CPU generator for one pair of one step; `stream` names the use ("eps", "z", "t") so that uses are independent.

    torch's CPU generator keeps 32 bits of its seed: two of the draws of a long run may coincide by chance.
    """
    key = blake2b(repr((seed, step, slot, stream)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") & (2**63 - 1))


def pair_randn(
    shape_per_pair: Sequence[int],
    seed: int,
    step: int | Sequence[str],
    slots: Tensor,
    stream: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(B, *shape_per_pair) standard normals on the CPU; `slots` (B,) int64 on the CPU, indices in the global batch."""
    generators = _generators(seed, step, slots, stream)
    return torch.stack([torch.randn(*shape_per_pair, generator=generator, dtype=dtype) for generator in generators])


def pair_rand(seed: int, step: int | Sequence[str], slots: Tensor, stream: str) -> Tensor:
    """(B,) float64 in [0, 1) on the CPU, one for each slot."""
    generators = _generators(seed, step, slots, stream)
    return torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])


def _generators(seed: int, step: int | Sequence[str], slots: Tensor, stream: str) -> list[torch.Generator]:
    numbers = slots.tolist()
    places = zip([step] * len(numbers) if isinstance(step, int) else step, numbers, strict=True)
    return [pair_generator(seed, first, second, stream) for first, second in places]
