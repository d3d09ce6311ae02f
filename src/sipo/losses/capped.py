"""Diffusion-DPO and SIPO whose members stop counting once their errors have moved by a share of the reference's."""

import math
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
    """Capped DPO: `-log sigmoid(beta H (min(rho_w, omega_t gain_cap r_w) - max(rho_l, -omega_t cap r_l)))`.

    `rho = omega_t (r - m)` as in Diffusion-DPO; `m` is the policy's, `r` the reference's error. Diffusion-DPO can lower its loss for ever by raising the rejected
    error, and drags the chosen one along. Here the rejected member's error has no gradient once `m_l > (1 + cap) r_l`,
    and the chosen one's none once `m_w < (1 - gain_cap) r_w`: a trust region in error space, per (pair, timestep, noise),
    as PPO's clip is one of ratios (Schulman et al. 2017, Eq. 7). Without `gain_cap` the pull on the chosen one always remains.
    `cap` and `gain_cap` are shares of the reference's error, at least 0 (cap 0: the rejected member may not get worse at all;
    infinity for both: Diffusion-DPO). `beta`, `omega`, `horizon`: as in DiffusionDPO. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    cap: float = 0.1
    gain_cap: float = math.inf
    omega: Omega = "constant"
    horizon: float | None = None

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __post_init__(self):
        check_preference(self)
        check_caps(self.cap, self.gain_cap)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios = beta_h(self), log_ratios(terms, self.omega)
        counted = capped(*ratios, *trust_region(terms, self.omega, self.cap, self.gain_cap))
        found = formulas.diffusion_dpo(*counted, scale)
        return found.loss, preference_metrics(scale, *ratios, found) | capped_metrics(ratios, counted, self.gain_cap)


@dataclass(frozen=True)
class CappedSIPO:
    """Capped SIPO: SIPO on `min(rho_w, omega_t gain_cap r_w)` and `max(rho_l, -omega_t cap r_l)` in the place of `rho_w` and `rho_l`.

    `cap`, `gain_cap`: as in CappedDPO; all others as in SIPO. Raises ValueError for values out of range.
    """

    beta: float = 1.0
    cap: float = 0.1
    gain_cap: float = math.inf
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
        check_caps(self.cap, self.gain_cap)

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, ratios = beta_h(self), log_ratios(terms, self.omega)
        counted = capped(*ratios, *trust_region(terms, self.omega, self.cap, self.gain_cap))
        weights = log_weights(terms, self.log_iw_scale)
        found = formulas.sipo(*counted, *weights, scale, self.clip_range, self.prune_threshold, self.detach_weights)
        return found.loss, preference_metrics(scale, *ratios, found) | capped_metrics(ratios, counted, self.gain_cap)


def check_caps(cap: float, gain_cap: float) -> None:
    """Raises ValueError for a negative cap."""
    for name, value in (("cap", cap), ("gain_cap", gain_cap)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}; it must not be negative (a share of the reference's error)")


def trust_region(terms: PairTerms, omega: Omega, cap: float, gain_cap: float) -> tuple[Tensor, Tensor]:
    """The highest log-ratio of the chosen and the lowest of the rejected member that count, (B,) each."""
    chosen, rejected = (omega_t(terms, omega) * member.reference_error for member in members(terms))
    highest = torch.full_like(chosen, math.inf) if gain_cap == math.inf else gain_cap * chosen
    return highest, -cap * rejected


def capped(rho_w: Tensor, rho_l: Tensor, highest: Tensor, lowest: Tensor) -> tuple[Tensor, Tensor]:
    """The log-ratios as far as they count, (B,) each."""
    return torch.minimum(rho_w, highest), torch.maximum(rho_l, lowest)


def capped_metrics(ratios: tuple[Tensor, Tensor], counted: tuple[Tensor, Tensor], gain_cap: float) -> dict[str, Tensor]:
    """Shares of pairs, (B,): `capped`, whose rejected member no longer counts, and `gain_capped`, whose chosen one does not."""
    (rho_w, rho_l), (chosen, rejected) = ratios, counted
    metrics = {"capped": (rho_l < rejected).to(rho_l.dtype)}
    return metrics | ({} if gain_cap == math.inf else {"gain_capped": (rho_w > chosen).to(rho_w.dtype)})
