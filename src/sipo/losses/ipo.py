"""IPO on diffusion log-ratios (Azar et al. 2023): a squared loss with a finite target for the margin."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import Omega, beta_h, check_preference, log_ratios, preference_metrics
from sipo.terms import PairTerms


@dataclass(frozen=True)
class IPO:
    """IPO: `(beta H m - 1/2)^2`.

    The margin is pulled back when it exceeds its target, 1 / (2 beta H). That bounds the margin, not the errors: both may
    still rise together. `beta`, `omega`, `horizon`: as in DiffusionDPO. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        check_preference(self)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios = beta_h(self), log_ratios(terms, self.omega)
        found = formulas.ipo(*ratios, scale)
        return found.loss, preference_metrics(scale, *ratios, found)
