"""Pairwise NCA on diffusion log-ratios (Chen et al. 2024): sigmoids of its own for each member."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import Omega, beta_h, check_preference, log_ratios, preference_metrics
from sipo.terms import PairTerms


@dataclass(frozen=True)
class NCA:
    """Pairwise NCA: `-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2`, `r = beta H rho`.

    `beta`, `omega`, `horizon`: as in DiffusionDPO. Raises ValueError for values out of range.
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
        found = formulas.nca(*ratios, scale)
        return found.loss, preference_metrics(scale, *ratios, found)
