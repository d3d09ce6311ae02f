"""DPO-Positive on diffusion log-ratios (Pal et al. 2024): a penalty as soon as the chosen falls below the reference."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import Omega, beta_h, check_preference, log_ratios, preference_metrics
from sipo.terms import PairTerms


@dataclass(frozen=True)
class DPOP:
    """DPO-Positive: `-log sigmoid(beta H (m - anchor max(0, -rho_w)))`, `rho_w` the chosen member's log-ratio.

    `anchor`: the weight of the penalty, at least 0 (0 is Diffusion-DPO). `beta`, `omega`, `horizon`: as in DiffusionDPO.
    Raises ValueError for values out of range.
    """

    beta: float = 1.0
    anchor: float = 5.0
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        check_preference(self)
        if not self.anchor >= 0:
            raise ValueError(f"anchor is {self.anchor}; it must not be negative")

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios = beta_h(self), log_ratios(terms, self.omega)
        found = formulas.dpop(*ratios, scale, self.anchor)
        return found.loss, preference_metrics(scale, *ratios, found)
