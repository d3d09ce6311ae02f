"""SIPO on the log-probabilities of a language model's tokens; docs/text.md has what the paper leaves open here.

Appendix B.3 states that the method applies to language models and writes no formula. Here x_0 is the response, log p its sum
over tokens, exact where a diffusion model has a bound. q, which sampled the response, is the reference: offline pairs do not
say what sampled them, and the paper's p_old (Eq. 5) is the reference at the start.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import check_weighting, preference_metrics
from sipo.losses.formulas import Preference

Unit = Literal["token", "sequence"]


def sipo_text_loss(
    logps: Tensor, ref_logps: Tensor, mask: Tensor, beta: float = 0.1, clip_range: float = 0.1,
    prune_threshold: float = 0.9, unit: Unit = "sequence", detach_weights: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """SIPO's loss of each pair and its metrics, (B / 2,) each, from log-probabilities of tokens, (B, T) each.

    Rows are responses, all chosen ones before all rejected ones in the same order, as TRL batches them; `logps` and
    `ref_logps` are log p(token | prompt, tokens before) of policy and reference, `mask` is 1 on the response's tokens.
    Elsewhere they may hold anything. With `r_t = logps - ref_logps` and `rho = sum_t r_t`:

    - `unit="sequence"`: Eq. 18 and 19 on whole responses, `-mask log sigmoid(beta wi (rho_w - rho_l))`. `log w` is the
      mean of r_t over the response's tokens, as a diffusion model's is the mean over dimensions; a pair is pruned.
    - `unit="token"`: a token is a step, with a weight of its own (A14, A15): `-log sigmoid(beta (s_w - s_l))`,
      `s = sum_t [w_t >= tau] clip(1 / w_t, 1 - e, 1 + e) r_t`, `log w_t = r_t`; a token is pruned.

    `beta`: the temperature, as in DPO. `clip_range`: e. `prune_threshold`: tau; 0 prunes nothing. Both 0: DPO. The gradient
    flows through the weight unless `detach_weights`; never through the pruning. Average the losses over all pairs, pruned
    ones included. Metrics are those of `sipo.SIPO`; with tokens `weight`, `pruned`, `clipped` are means over the pair's.
    Raises ValueError for shapes and values out of range.
    """
    _check_shapes(logps, ref_logps, mask)
    check_values(beta, clip_range, prune_threshold, unit)
    ratio, mask = _log_ratios(logps, ref_logps, mask)
    of_unit = _sequence if unit == "sequence" else _token
    found = of_unit(ratio, mask, beta, clip_range, prune_threshold, detach_weights)
    return found.loss, preference_metrics(beta, *_sides(ratio.sum(1)), found)


def _log_ratios(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`log p_theta / p_ref` of each token, 0 outside the mask, and the mask, (B, T) each, in float32 or better."""
    dtype = torch.promote_types(logps.dtype, torch.float32)
    inside = mask.bool()
    ratio = torch.where(inside, logps.to(dtype) - ref_logps.detach().to(dtype), 0)
    return ratio, inside.to(dtype)


def _sequence(ratio: Tensor, mask: Tensor, beta: float, e: float, tau: float, detach_weights: bool) -> Preference:
    rho = ratio.sum(1)  # log p_theta(y) / p_ref(y), (B,)
    log_w = rho / mask.sum(1).clamp(min=1)  # of the mean token, (B,)
    return formulas.sipo(*_sides(rho), *_sides(log_w), beta, e, tau, detach_weights)


def _token(ratio: Tensor, mask: Tensor, beta: float, e: float, tau: float, detach_weights: bool) -> Preference:
    log_w = ratio.detach() if detach_weights else ratio
    wi = formulas.clip_log(-log_w, e).exp()  # clip(1 / w_t), (B, T)
    keep = formulas.keep_mask(log_w, tau)
    s = (keep * wi * ratio).sum(1)  # A15, a term a token, (B,)
    loss, logit, *_ = formulas.diffusion_dpo(*_sides(s), beta)
    tokens = _of_pairs(mask).clamp(min=1)
    weight, kept, clipped = (_of_pairs(mask * x) / tokens for x in (wi.detach(), keep, formulas.is_clipped(-log_w, e)))
    return Preference(loss, logit, weight, kept, clipped)


def _of_pairs(x: Tensor) -> Tensor:
    """The sum over the tokens of both members of each pair, (B, T) -> (B / 2,)."""
    chosen, rejected = _sides(x.sum(1))
    return chosen + rejected


def _sides(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the chosen and of the rejected responses, (B,) -> (B / 2,) each."""
    return x[: len(x) // 2], x[len(x) // 2 :]


def _check_shapes(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> None:
    shapes = [tuple(x.shape) for x in (logps, ref_logps, mask)]
    if logps.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(
            f"logps, ref_logps and mask are {', '.join(map(str, shapes))}; they must have one shape, (B, T)"
        )
    if len(logps) % 2:
        raise ValueError(f"logps has {len(logps)} rows; it must have all chosen responses, then as many rejected ones")
    if mask.is_floating_point() or mask.is_complex():
        raise ValueError(f"mask is {mask.dtype}; it must be boolean, or 0 and 1 as integers: it is no weight")


def check_values(beta: float, clip_range: float, prune_threshold: float, unit: str) -> None:
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta is {beta}; it must be positive and finite")
    if unit not in get_args(Unit):
        raise ValueError(f"unit is {unit!r}; it must be token or sequence")
    check_weighting(clip_range, prune_threshold, log_iw_scale=1.0)
