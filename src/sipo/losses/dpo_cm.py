"""DPO-C&M: Diffusion-DPO with clipping and masking by the importance weight, Eq. 12 and 13."""

from dataclasses import dataclass
from typing import ClassVar

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
class DPOCM:
    """`-wt * mask * log sigmoid(beta H m)`, `wt = clip(w(t), 1 - e, 1 + e)`, `w(t) = min(w^w, w^l)`.

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
        scale, e = beta_h(self), self.clip_range
        log_ratio_w, log_ratio_l = log_ratios(terms, self.omega)
        logit = scale * (log_ratio_w - log_ratio_l)  # Eq. 10, 11
        log_w = torch.minimum(*log_weights(terms, self.log_iw_scale)).detach()  # w(t), Eq. 5, of the pair
        wt = clip_log(log_w, e).exp()  # Eq. 12
        mask = keep_mask(log_w, self.prune_threshold)  # section 3.1, Appendix F.1
        loss = -wt * mask * logsigmoid(logit)  # Eq. 13
        metrics = preference_metrics(scale, log_ratio_w, log_ratio_l, logit)
        return loss, metrics | weight_metrics(log_w, wt, mask, e)
