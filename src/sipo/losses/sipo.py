"""SIPO: the log-ratios scaled by the clipped inverse importance weight, Eq. 18 and 19."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sipo.losses.common import (
    Omega,
    beta_h,
    check_preference,
    check_weighting,
    clip_log,
    keep_mask,
    log_ratios,
    log_weights,
    preference_metrics,
    weight_metrics,
)
from sipo.terms import PairTerms


@dataclass(frozen=True)
class SIPO:
    """`-mask * log sigmoid(beta H wi m)`, `wi = max(clip(1/w^w, 1 - e, 1 + e), clip(1/w^l, 1 - e, 1 + e))`.

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
        scale, e = beta_h(self), self.clip_range
        log_ratio_w, log_ratio_l = log_ratios(terms, self.omega)
        log_w_w, log_w_l = log_weights(terms, self.log_iw_scale)
        wi = torch.maximum(clip_log(-log_w_w, e), clip_log(-log_w_l, e)).exp()  # Eq. 19
        wi = wi.detach() if self.detach_weights else wi
        factor = wi if self.weighting == "multiply" else 1 / wi  # Eq. 18, or A17
        logit = scale * factor * (log_ratio_w - log_ratio_l)  # psi^w - psi^l, weighted, Eq. 18
        log_w = torch.minimum(log_w_w, log_w_l)  # w(t) of the pair
        mask = keep_mask(log_w, self.prune_threshold)  # section 3.1, Appendix F.1
        loss = -mask * logsigmoid(logit)  # Eq. 18
        metrics = preference_metrics(scale, log_ratio_w, log_ratio_l, logit)
        return loss, metrics | weight_metrics(-log_w, wi, mask, e)
