"""Supervised fine-tuning on the chosen member: the baseline, and the start of SFT-then-DPO recipes."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.terms import PairTerms, mse


@dataclass(frozen=True)
class SFT:
    """Supervised fine-tuning on the chosen: `mse(pred_theta(x_t^w), target)`: Eq. 3 on the chosen samples, with neither reference nor rejected."""

    needs_reference: ClassVar[bool] = False
    needs_rejected: ClassVar[bool] = False
    needs_importance_weights: ClassVar[bool] = False

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        return mse(terms.chosen.policy, terms.chosen.target), {}  # Eq. 3
