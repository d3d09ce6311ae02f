"""Which timesteps training draws: quantile functions, from u in [0, 1) to t.

A quantile function turns stratified u into stratified t, and makes the draw of a pair a function of its slot alone.
Densities lie on the unit time `x = t / T` of a VP schedule and on the unshifted time of a flow schedule.
`low` and `high` are in units of `t` for both, `low <= t < high`, `high = None` meaning `num_train_timesteps`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sipo.rng import pair_rand
from sipo.schedule import FlowSchedule, Schedule


class Timesteps(Protocol):
    """A density over timesteps. `stratified`: each of the N equal strata of u is hit once by a global batch of N."""

    @property
    def stratified(self) -> bool: ...

    def __call__(self, schedule: Schedule, u: Tensor, num_inference_steps: int) -> Tensor:
        """u (B,) in [0, 1) -> t (B,): int64 on a VP schedule, float in u's dtype on a flow schedule."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform in `low <= t < high`. The paper's "60 to T" is `Uniform(low=60)`. Raises ValueError for an empty range."""

    low: float = 1
    high: float | None = None
    stratified: bool = False

    def __post_init__(self):
        _check_range(self.low, self.high)

    def __call__(self, schedule: Schedule, u: Tensor, num_inference_steps: int) -> Tensor:
        start, end = _unit_range(schedule, self.low, self.high, num_inference_steps)
        return _to_timestep(schedule, start + u.double() * (end - start), start, end, u.dtype)


@dataclass(frozen=True)
class LogitNormal:
    """`logit(x) ~ N(mean, std^2)` (Esser et al. 2024, section 3.1), restricted to `low <= t < high` and renormalised.

    Raises ValueError unless mean is finite, std > 0 and the range is not empty.
    """

    mean: float = 0.0
    std: float = 1.0
    low: float = 1
    high: float | None = None
    stratified: bool = False

    def __post_init__(self):
        if not math.isfinite(self.mean):
            raise ValueError(f"mean is {self.mean}; it must be finite")
        if not 0 < self.std < math.inf:
            raise ValueError(f"std is {self.std}; it must be positive and finite")
        _check_range(self.low, self.high)

    def __call__(self, schedule: Schedule, u: Tensor, num_inference_steps: int) -> Tensor:
        start, end = _unit_range(schedule, self.low, self.high, num_inference_steps)
        cdf_start, cdf_end = self._cdf(start), self._cdf(end)
        normal = torch.special.ndtri(cdf_start + u.double() * (cdf_end - cdf_start))
        x = torch.sigmoid(self.mean + self.std * normal)
        return _to_timestep(schedule, x, start, end, u.dtype)

    def _cdf(self, x: float) -> float:
        if x <= 0 or x >= 1:
            return float(x >= 1)
        return 0.5 * (1 + math.erf((math.log(x / (1 - x)) - self.mean) / (self.std * math.sqrt(2))))


TIMESTEPS: dict[str, type[Uniform] | type[LogitNormal]] = {"uniform": Uniform, "logit_normal": LogitNormal}


def draw_timesteps(
    timesteps: Timesteps,
    schedule: Schedule,
    num_inference_steps: int,
    seed: int,
    step: int | Sequence[str],
    slots: Tensor,
    global_batch: int,
) -> Tensor:
    """t (B,) on the CPU, int64 (VP) or float32 (flow), for the pairs `slots` (B,) of a batch of `global_batch`.

    Or the draws `slots` of `global_batch` fixed ones of each of the pairs whose ids stand in the place of `step`.
    """
    u = pair_rand(seed, step, slots, "timestep")  # (B,) float64
    if timesteps.stratified:
        u = (slots + u) / global_batch
    t = timesteps(schedule, u, num_inference_steps)
    return t.float() if t.is_floating_point() else t


def _check_range(low: float, high: float | None) -> None:
    """Raises ValueError for a range that is empty whatever the schedule."""
    if not 0 <= low < math.inf:
        raise ValueError(f"low = {low}: it must not be negative")
    if high is not None and not low < high < math.inf:
        raise ValueError(f"high = {high}: it must be finite and above low = {low}")


def _unit_range(schedule: Schedule, low: float, high: float | None, num_inference_steps: int) -> tuple[float, float]:
    """`low`, `high` as unit times, checked. On a flow path u <= 1/K is never drawn: its K-grid step is empty."""
    T = schedule.num_train_timesteps
    high = T if high is None else high
    if not 0 <= low < high <= T:
        raise ValueError(f"timesteps low = {low}, high = {high}: they must satisfy 0 <= low < high <= {T}")
    if not isinstance(schedule, FlowSchedule):
        if low != int(low) or high != int(high):
            raise ValueError(f"timesteps low = {low}, high = {high}: a VP schedule has whole timesteps")
        return low / T, high / T
    start, end = schedule.unshifted(torch.tensor([low / T, high / T], dtype=torch.float64)).tolist()
    start = max(start, (1 + 1e-5) / num_inference_steps)  # the margin outlasts the rounding of t to float32
    if start >= end:
        raise ValueError(
            f"timesteps high = {high} lies within the last of {num_inference_steps} sampler steps, which is never drawn"
        )
    return start, end


def _to_timestep(schedule: Schedule, x: Tensor, start: float, end: float, dtype: torch.dtype) -> Tensor:
    """Unit time (B,) -> t (B,)."""
    T = schedule.num_train_timesteps
    if isinstance(schedule, FlowSchedule):
        return (T * schedule.shifted(x.clamp(start, end))).to(dtype)
    t = (T * x + 1e-9).floor().long()  # 1e-9: rounding must not push a u on a bin's edge into the bin below
    return t.clamp(round(T * start), round(T * end) - 1)
