"""D3PO (Yang et al. 2024): DPO on every step of the trajectories that sampled a pair."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import preference_metrics
from sipo.terms import StepTerms


@dataclass(frozen=True)
class D3PO:
    """D3PO: `-log sigmoid(beta (log r_w - log r_l))`, `r = clip(p_theta(x_s | x_t) / p_ref(x_s | x_t), 1 - e, 1 + e)`.

    x_t and x_s are states of the trajectories that ended in the chosen and the rejected sample, so the pairs must have been
    sampled with their trajectories (`sipo online`). The densities are means over dimensions, as there; beyond the clip a
    member has no gradient. `beta`: per step, in no relation to that of DiffusionDPO. `clip_range`: e.
    Raises ValueError for values out of range.
    """

    beta: float = 0.1
    clip_range: float = 0.1

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        if not self.beta > 0:
            raise ValueError(f"beta is {self.beta}; it must be positive")
        if not 0 < self.clip_range < 1:
            raise ValueError(f"clip_range is {self.clip_range}; it must satisfy 0 < clip_range < 1")

    def __call__(self, terms: StepTerms) -> tuple[Tensor, dict[str, Tensor]]:
        found = formulas.d3po(terms.chosen, terms.rejected, self.beta, self.clip_range)
        clipped = [formulas.is_clipped(rho, self.clip_range) for rho in (terms.chosen, terms.rejected)]
        metrics = preference_metrics(self.beta, terms.chosen, terms.rejected, found)
        return found.loss, metrics | {"clipped": torch.maximum(*clipped)}
