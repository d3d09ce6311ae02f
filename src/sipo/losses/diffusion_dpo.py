"""Diffusion-DPO (Wallace et al. 2024), Eq. 10 and 11."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import Omega, beta_h, check_preference, log_ratios, preference_metrics
from sipo.terms import PairTerms


@dataclass(frozen=True)
class DiffusionDPO:
    """Diffusion-DPO: `-log sigmoid(beta H m)`.

    `beta`: the paper's temperature, with neither T nor the 1/2 absorbed: 5 is `beta_dpo = 5000` in
    SalesforceAIResearch/DiffusionDPO. `omega`: 1/2 ("constant") or the step coefficient ("transition"). `horizon`: H;
    None is T = 1000 for "constant" and K for "transition" (`resolve_horizon`).
    Raises ValueError for values out of range.
    """

    beta: float = 5.0
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        check_preference(self)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios = beta_h(self), log_ratios(terms, self.omega)
        found = formulas.diffusion_dpo(*ratios, scale)
        return found.loss, preference_metrics(scale, *ratios, found)
