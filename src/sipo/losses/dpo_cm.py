"""DPO-C&M: Diffusion-DPO with clipping and masking by the importance weight, Eq. 12 and 13."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import (
    Omega,
    beta_h,
    check_preference,
    check_weighting,
    log_ratios,
    log_weights,
    preference_metrics,
)
from sipo.terms import PairTerms


@dataclass(frozen=True)
class DPOCM:
    """DPO-C&M: `-wt * mask * log sigmoid(beta H m)`, `wt = clip(w(t), 1 - e, 1 + e)`, `w(t) = min(w^w, w^l)`.

    `beta`, `omega`, `horizon`: as in DiffusionDPO. `clip_range`: e. `prune_threshold`: tau; pairs with w(t) < tau count
    as 0 (0 prunes nothing). `log_iw_scale`: a factor on log w before both, ours, 1 in the paper. The weight is a sample
    weight: no gradient flows through it. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    clip_range: float = 0.1
    prune_threshold: float = 0.9
    log_iw_scale: float = 1.0
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = True

    def __post_init__(self):
        check_preference(self)
        check_weighting(self.clip_range, self.prune_threshold, self.log_iw_scale)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios, weights = beta_h(self), log_ratios(terms, self.omega), log_weights(terms, self.log_iw_scale)
        found = formulas.dpo_cm(*ratios, *weights, scale, self.clip_range, self.prune_threshold)
        return found.loss, preference_metrics(scale, *ratios, found)
