"""The safeguard of Diffusion-SDPO (AIDC-AI/Diffusion-SDPO): the gradient of the rejected is scaled down where it would harm the chosen."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import Omega, beta_h, check_preference, log_ratios, members, preference_metrics
from sipo.terms import PairTerms


@dataclass(frozen=True)
class SafeguardedDPO:
    """Safeguarded DPO: `m_l -> sg[m_l] + s (m_l - sg[m_l])`, `s = clip((1 - mu) |e_w|^2 / <e_w, e_l>, 0, 1)` for `<e_w, e_l> > 0`.

    `e` is prediction - target, `m_l` the rejected member's error, sg stops the gradient. Where both errors point the same
    way, pushing the rejected one up also pushes the chosen one; s lets the chosen error fall, to first order in output
    space, at no less than mu times its own rate. One s a pair here; the official code computes one for the batch.
    `mu` lies in [0, 1). `beta`, `omega`, `horizon`: as in DiffusionDPO. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    mu: float = 0.9
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        check_preference(self)
        if not 0 <= self.mu < 1:
            raise ValueError(f"mu is {self.mu}; it must satisfy 0 <= mu < 1")

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, (rho_w, rho_l) = beta_h(self), log_ratios(terms, self.omega)
        s = safeguard(terms, self.mu)
        rho_l = rho_l.detach() + s * (rho_l - rho_l.detach())
        found = formulas.diffusion_dpo(rho_w, rho_l, scale)
        metrics = preference_metrics(scale, rho_w, rho_l, found)
        return found.loss, metrics | {"rejected_share": s}


def safeguard(terms: PairTerms, mu: float) -> Tensor:
    """s in [0, 1], (B,), without a gradient."""
    e_w, e_l = ((b.policy - b.target).detach().flatten(1) for b in members(terms))
    aligned = (e_w * e_l).sum(1)
    s = ((1 - mu) * (e_w**2).sum(1) / aligned).clamp(0, 1)
    return torch.where(aligned > 0, s, torch.ones_like(s))
