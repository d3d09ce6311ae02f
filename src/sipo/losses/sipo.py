"""SIPO: the log-ratios scaled by the clipped inverse importance weight, Eq. 18 and 19."""

from dataclasses import dataclass
from typing import ClassVar, Literal

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
class SIPO:
    """SIPO: `-mask * log sigmoid(beta H wi m)`, `wi = max(clip(1/w^w, 1 - e, 1 + e), clip(1/w^l, 1 - e, 1 + e))`.

    `beta`, `omega`, `horizon`: as in DiffusionDPO. `clip_range`, `prune_threshold`, `log_iw_scale`: as in DPOCM.
    `detach_weights`: stop the gradient through wi, which the analysis of Appendix B.2 lets flow. `weighting`:
    "multiply" (Eq. 18, 19, A14, A15) or "divide" (A17, A18, a slip of notation; for ablation). The weight is per step,
    clipped and averaged over dimensions: a bounded correction of the off-policy mismatch, not its removal.
    Raises ValueError for values out of range.
    """

    beta: float = 1.0
    clip_range: float = 0.1
    prune_threshold: float = 0.9
    log_iw_scale: float = 1.0
    detach_weights: bool = False
    weighting: Literal["multiply", "divide"] = "multiply"
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = True

    def __post_init__(self):
        check_preference(self)
        check_weighting(self.clip_range, self.prune_threshold, self.log_iw_scale)
        if self.weighting not in ("multiply", "divide"):
            raise ValueError(f"weighting is {self.weighting!r}; it must be multiply or divide")

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios, weights = beta_h(self), log_ratios(terms, self.omega), log_weights(terms, self.log_iw_scale)
        found = formulas.sipo(*ratios, *weights, scale, self.clip_range, self.prune_threshold, self.detach_weights,
                              self.weighting)  # fmt: skip
        return found.loss, preference_metrics(scale, *ratios, found)
