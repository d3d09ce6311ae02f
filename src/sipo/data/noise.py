"""The noise that the members of pairs were sampled from, by their seeds: what `data.noise: sampled` trains with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sipo.data.pairs.rows import Origin, PairSource
from sipo.errors import UserError
from sipo.size import Size


@dataclass(frozen=True)
class SampledNoise:
    """seeds: (n, members) int64, of chosen and, where it is used, rejected. dtype: in which samplers drew. models: that drew."""

    seeds: np.ndarray
    dtype: torch.dtype
    models: tuple[str, ...]


def sampled_noise(source: PairSource, rows: list[int], size: Size, members: int) -> SampledNoise:
    """That of the rows. Raises UserError where a member has no seed, was sampled at another size, or not by the model's own
    pipeline, and where samplers drew in several dtypes."""
    origins = source.origins(rows)
    wrong = [(row, fault) for row, each in zip(rows, origins, strict=True) if (fault := _fault(each, size, members))]
    if wrong:
        row, fault = wrong[0]
        raise UserError(
            f"data.noise: sampled needs the noise of every member, and {len(wrong):,} of {len(rows):,} pairs lack it; the first, "
            f"{source.id(row)}: {fault}"
        )
    samplers = [sampler or {} for each in origins for sampler in each.samplers[:members]]
    dtypes = sorted({str(sampler.get("noise", "float32")) for sampler in samplers})
    if len(dtypes) > 1:
        raise UserError(f"data.noise: samplers drew noise in {' and '.join(dtypes)}; train on pairs of one kind")
    seeds = np.array([each.seeds[:members] for each in origins], dtype=np.int64)
    models = dict.fromkeys(str(sampler.get("model", "")) for sampler in samplers)
    return SampledNoise(seeds, getattr(torch, dtypes[0]), tuple(models))


def _fault(origin: Origin, size: Size, members: int) -> str | None:
    """Why a pair's noise is not known, or None."""
    for name, seed, sampler in zip(("chosen", "rejected"), origin.seeds[:members], origin.samplers, strict=False):
        if seed is None or sampler is None:
            return (
                f"there is no {name} seed and sampler in its row. `sipo label`, `sipo online`, `sipo mini pairs` and `sipo annotate` "
                "write them of samples that `sipo generate` made"
            )
        if fault := _sampler_fault(sampler, size):
            return f"the {name} member was {fault}"
    return None


def _sampler_fault(sampler: Mapping[str, Any], size: Size) -> str | None:
    if "kernel" in sampler:
        return "sampled with a trajectory, by a sampler that draws its noise otherwise"
    if sampler.get("noise", "float32") not in ("float32", "bfloat16", "float16"):
        return f"sampled from noise in {sampler['noise']}, which is no floating-point type"
    wanted = size.to_dict()
    found = {key: sampler.get(key) for key in wanted}
    if found != wanted:
        what = ", ".join(f"{key} {found[key]}" for key in wanted if found[key] != wanted[key])
        return f"sampled at {what}; the training is at {size}"
    return None
