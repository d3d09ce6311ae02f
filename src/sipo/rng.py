"""Randomness as a function of (seed, optimizer step, the pair's index in the global batch, stream) and nothing else.

So a resumed run draws what the unbroken one would have drawn, and neither the number of processes nor the split into
micro-batches changes the gradients.
"""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor


def pair_generator(seed: int, step: int, slot: int, stream: str) -> torch.Generator:
    """A CPU generator for one pair of one step; `stream` names the use ("eps", "z", "t") so that uses are independent.

    torch's CPU generator keeps 32 bits of its seed: two of the draws of a long run may coincide by chance.
    """
    key = blake2b(repr((seed, step, slot, stream)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") & (2**63 - 1))


def pair_randn(
    shape_per_pair: Sequence[int],
    seed: int,
    step: int,
    slots: Tensor,
    stream: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(B, *shape_per_pair) standard normals on the CPU; `slots` (B,) int64 on the CPU, indices in the global batch."""
    generators = [pair_generator(seed, step, slot, stream) for slot in slots.tolist()]
    return torch.stack([torch.randn(*shape_per_pair, generator=generator, dtype=dtype) for generator in generators])


def pair_rand(seed: int, step: int, slots: Tensor, stream: str) -> Tensor:
    """(B,) float64 in [0, 1) on the CPU, one for each slot."""
    generators = [pair_generator(seed, step, slot, stream) for slot in slots.tolist()]
    return torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
