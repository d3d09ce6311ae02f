"""Diffusion-DPO and SIPO whose rejected member stops counting once its error has grown by a share of the reference's."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import (
    Omega,
    beta_h,
    check_preference,
    check_weighting,
    log_ratios,
    log_weights,
    members,
    omega_t,
    preference_metrics,
)
from sipo.terms import PairTerms


@dataclass(frozen=True)
class CappedDPO:
    """Capped DPO: `-log sigmoid(beta H (rho_w - max(rho_l, -omega_t cap r_l)))`, `rho = omega_t (r - m)`.

    `m` is the policy's, `r` the reference's error. Diffusion-DPO can lower its loss for ever by raising the rejected
    error, and drags the chosen one along. Here the rejected member's error has no gradient once `m_l > (1 + cap) r_l`:
    a trust region in error space, one-sided and per (pair, timestep, noise). The pull on the chosen one always remains.
    `cap` is a share of the reference's error, at least 0 (0: the rejected member may not get worse at all; infinity:
    Diffusion-DPO). `beta`, `omega`, `horizon`: as in DiffusionDPO. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    cap: float = 0.1
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        check_preference(self)
        check_cap(self.cap)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, (rho_w, rho_l) = beta_h(self), log_ratios(terms, self.omega)
        lowest = -self.cap * reference_share(terms, self.omega)
        found = formulas.diffusion_dpo(rho_w, torch.maximum(rho_l, lowest), scale)
        return found.loss, preference_metrics(scale, rho_w, rho_l, found) | capped_metric(rho_l, lowest)


@dataclass(frozen=True)
class CappedSIPO:
    """Capped SIPO: SIPO on the capped log-ratio of the rejected member: `max(rho_l, -omega_t cap r_l)` in the place of `rho_l`.

    `cap`: as in CappedDPO; all others as in SIPO. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    cap: float = 0.1
    clip_range: float = 0.1
    prune_threshold: float = 0.9
    log_iw_scale: float = 1.0
    detach_weights: bool = False
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = True

    def __post_init__(self):
        check_preference(self)
        check_weighting(self.clip_range, self.prune_threshold, self.log_iw_scale)
        check_cap(self.cap)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, (rho_w, rho_l) = beta_h(self), log_ratios(terms, self.omega)
        lowest, weights = -self.cap * reference_share(terms, self.omega), log_weights(terms, self.log_iw_scale)
        found = formulas.sipo(
            rho_w,
            torch.maximum(rho_l, lowest),
            *weights,
            scale,
            self.clip_range,
            self.prune_threshold,
            self.detach_weights,
        )
        return found.loss, preference_metrics(scale, rho_w, rho_l, found) | capped_metric(rho_l, lowest)


def check_cap(cap: float) -> None:
    """Raises ValueError for a negative cap."""
    if not cap >= 0:
        raise ValueError(f"cap is {cap}; it must not be negative (a share of the reference's error)")


def reference_share(terms: PairTerms, omega: Omega) -> Tensor:
    """`omega_t r_l`, (B,): the reference's error on the rejected member, in units of the log-ratio."""
    return omega_t(terms, omega) * members(terms)[1].reference_error


def capped_metric(rho_l: Tensor, lowest: Tensor) -> dict[str, Tensor]:
    """The share of pairs whose rejected member no longer counts, (B,)."""
    return {"capped": (rho_l.detach() < lowest).to(rho_l.dtype)}
