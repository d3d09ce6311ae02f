"""The objectives as pure functions of log-ratios and log weights, (B,) each, whatever model these come from.

A diffusion model estimates them from squared errors (`sipo.losses.common.log_ratios`); a language model sums the
log-probabilities of its tokens. Symbols: `rho = log p_theta / p_ref` of the chosen (`w`) and the rejected (`l`) member;
`log_w = log p_theta / q`, the importance weight; `beta_h` the temperature times the number of steps (1 step: beta);
`e` the clip range; `tau` the pruning threshold.

Weights are clipped in log space, before `exp`: `clip(exp(log w))` has an `inf * 0 = NaN` gradient where a weight is extreme.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Preference(NamedTuple):
    """What an objective makes of a batch of pairs, (B,) each. Without importance weights the last three are None."""

    loss: Tensor
    logit: Tensor  # the argument of the sigmoid
    weight: Tensor | None = None  # applied to the loss (DPO-C&M) or to the margin (SIPO)
    mask: Tensor | None = None  # 0 where the pair is pruned
    clipped: Tensor | None = None  # 1 where the weight lay outside [1 - e, 1 + e]


def diffusion_dpo(rho_w: Tensor, rho_l: Tensor, beta_h: float) -> Preference:
    """`-log sigmoid(beta H m)`, `m = rho_w - rho_l` (Eq. 10, 11)."""
    m = rho_w - rho_l  # -omega * Delta l, Eq. 11
    logit = beta_h * m
    return Preference(-logsigmoid(logit), logit)  # Eq. 10


def ipo(rho_w: Tensor, rho_l: Tensor, beta_h: float) -> Preference:
    """`(beta H m - 1/2)^2`: (beta H)^2 times Azar et al. 2023, Eq. 17; a finite target for the margin, with a restoring force."""
    logit = beta_h * (rho_w - rho_l)
    return Preference((logit - 0.5) ** 2, logit)


def dpop(rho_w: Tensor, rho_l: Tensor, beta_h: float, anchor: float) -> Preference:
    """`-log sigmoid(beta H (m - anchor max(0, -rho_w)))` (DPO-Positive, Pal et al. 2024, Eq. 3): the chosen must not fall."""
    logit = beta_h * (rho_w - rho_l - anchor * (-rho_w).clamp(min=0))
    return Preference(-logsigmoid(logit), logit)


def nca(rho_w: Tensor, rho_l: Tensor, beta_h: float) -> Preference:
    """`-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2`, `r = beta H rho` (pairwise NCA, Chen et al. 2024).

    Each member has sigmoids of its own, so the optimum of r_w is finite: the chosen cannot be traded for the rejected.
    """
    r_w, r_l = beta_h * rho_w, beta_h * rho_l
    return Preference(-logsigmoid(r_w) - (logsigmoid(-r_w) + logsigmoid(-r_l)) / 2, r_w - r_l)


def d3po(rho_w: Tensor, rho_l: Tensor, beta: float, e: float) -> Preference:
    """`-log sigmoid(beta (log r_w - log r_l))`, `r = clip(exp(rho), 1 - e, 1 + e)` of one step (yk7333/d3po: scripts/train.py)."""
    logit = beta * (clip_log(rho_w, e) - clip_log(rho_l, e))
    return Preference(-logsigmoid(logit), logit)


def dpo_cm(
    rho_w: Tensor, rho_l: Tensor, log_w_w: Tensor, log_w_l: Tensor, beta_h: float, e: float, tau: float
) -> Preference:
    """`-wt mask log sigmoid(beta H m)`, `wt = clip(w, 1 - e, 1 + e)`, `w = min(w^w, w^l)`: a sample weight, detached."""
    logit = beta_h * (rho_w - rho_l)  # Eq. 10, 11
    log_w = torch.minimum(log_w_w, log_w_l).detach()  # w(t), Eq. 5, of the pair
    wt = clip_log(log_w, e).exp()  # Eq. 12
    mask = keep_mask(log_w, tau)  # section 3.1, Appendix F.1
    return Preference(-wt * mask * logsigmoid(logit), logit, wt, mask, is_clipped(log_w, e))  # Eq. 13


def sipo(
    rho_w: Tensor, rho_l: Tensor, log_w_w: Tensor, log_w_l: Tensor, beta_h: float, e: float, tau: float,
    detach_weights: bool = False, weighting: Literal["multiply", "divide"] = "multiply",
) -> Preference:  # fmt: skip
    """`-mask log sigmoid(beta H wi m)`, `wi = max(clip(1/w^w, 1 - e, 1 + e), clip(1/w^l, 1 - e, 1 + e))` (Eq. 18, 19)."""
    wi = torch.maximum(clip_log(-log_w_w, e), clip_log(-log_w_l, e)).exp()  # Eq. 19
    wi = wi.detach() if detach_weights else wi
    factor = wi if weighting == "multiply" else 1 / wi  # Eq. 18, or A17
    logit = beta_h * factor * (rho_w - rho_l)  # psi^w - psi^l, weighted, Eq. 18
    log_w = torch.minimum(log_w_w, log_w_l)  # w(t) of the pair
    mask = keep_mask(log_w, tau)  # section 3.1, Appendix F.1
    return Preference(-mask * logsigmoid(logit), logit, wi, mask, is_clipped(-log_w, e))  # Eq. 18


def clip_log(log_w: Tensor, e: float) -> Tensor:
    """`log clip(w, 1 - e, 1 + e)`. With e = 0 the weight is the constant 1, without a gradient."""
    if e == 0:
        return torch.zeros_like(log_w)
    return log_w.clamp(math.log1p(-e), math.log1p(e))


def is_clipped(log_w: Tensor, e: float) -> Tensor:
    """1 where `w` lies outside [1 - e, 1 + e], else 0, (B,)."""
    outside = (log_w.detach() < math.log1p(-e)) | (log_w.detach() > math.log1p(e))
    return outside.to(log_w.dtype)


def keep_mask(log_w: Tensor, tau: float) -> Tensor:
    """1 where w >= tau, else 0, (B,); no gradient. tau = 0 keeps everything."""
    if tau == 0:
        return torch.ones_like(log_w)
    return (log_w.detach() >= math.log(tau)).to(log_w.dtype)
