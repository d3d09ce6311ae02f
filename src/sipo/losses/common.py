"""What the preference objectives share: from `PairTerms` to log-ratios and log weights, beta H, and the metrics."""

import dataclasses
import math
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from sipo.losses.formulas import Preference
from sipo.terms import Branch, PairTerms

Omega = Literal["constant", "transition"]
T = 1000  # training timesteps of every model family here, as in Eq. 10


class Objective(Protocol):
    """A frozen dataclass of hyperparameters; the flags say what `pair_terms` must compute for it."""

    needs_reference: ClassVar[bool]
    needs_rejected: ClassVar[bool]
    needs_importance_weights: ClassVar[bool]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        """Per-pair losses (B,) and metrics, (B,) each, detached."""
        ...


@runtime_checkable
class PreferenceObjective(Objective, Protocol):
    """An objective on `beta H m`."""

    @property
    def beta(self) -> float: ...
    @property
    def omega(self) -> Omega: ...
    @property
    def horizon(self) -> float | None: ...


def check_preference(loss: PreferenceObjective) -> None:
    """Raises ValueError unless beta > 0, omega is known, and the horizon is None or positive."""
    if not 0 < loss.beta < math.inf:
        raise ValueError(f"beta is {loss.beta}; it must be positive and finite")
    if loss.omega not in ("constant", "transition"):
        raise ValueError(f"omega is {loss.omega!r}; it must be constant or transition")
    if loss.horizon is not None and not 0 < loss.horizon < math.inf:
        raise ValueError(
            f"horizon is {loss.horizon}; it must be positive and finite (or null: T for constant, K for transition)"
        )


def check_weighting(clip_range: float, prune_threshold: float, log_iw_scale: float) -> None:
    """Raises ValueError unless 0 <= e < 1, tau >= 0 and the scale is positive."""
    if not 0 <= clip_range < 1:
        raise ValueError(f"clip_range is {clip_range}; it must satisfy 0 <= clip_range < 1")
    if not prune_threshold >= 0:
        raise ValueError(f"prune_threshold is {prune_threshold}; it must not be negative (0 prunes nothing)")
    if not 0 < log_iw_scale < math.inf:
        raise ValueError(f"log_iw_scale is {log_iw_scale}; it must be positive")


L = TypeVar("L", bound=Objective)


def resolve_horizon(loss: L, num_inference_steps: int) -> L:
    """`loss` with the horizon that None stands for: T = 1000 ("constant"), K = `num_inference_steps` ("transition").

    A loss does not know K; the trainer does. SFT, which has no horizon, comes back as it is.
    """
    if not isinstance(loss, PreferenceObjective) or loss.horizon is not None:
        return loss
    return dataclasses.replace(loss, horizon=T if loss.omega == "constant" else num_inference_steps)


def beta_h(loss: PreferenceObjective) -> float:
    """`beta H`, the factor on the log-ratios; ValueError for an unresolved "transition" horizon."""
    if loss.horizon is not None:
        return loss.beta * loss.horizon
    if loss.omega == "transition":
        raise ValueError('omega = "transition" needs a horizon (K, the sampler steps): see resolve_horizon')
    return loss.beta * T


def log_ratios(terms: PairTerms, omega: Omega) -> tuple[Tensor, Tensor]:
    """`log p_theta / p_ref ~ omega_t (mse_ref - mse_theta)` of the chosen and the rejected member, (B,) each.

    omega_t is 1/2 ("constant", Eq. 10 as SalesforceAIResearch/DiffusionDPO trains it), or the step coefficient
    ("transition", the exact expected log-ratio of one K-grid step).
    """
    factor, (chosen, rejected) = omega_t(terms, omega), members(terms)
    return factor * chosen.gain, factor * rejected.gain


def members(terms: PairTerms) -> tuple[Branch, Branch]:
    """The chosen and the rejected side; ValueError without the rejected one."""
    if terms.rejected is None:
        raise ValueError("a preference objective needs the rejected member of every pair")
    return terms.chosen, terms.rejected


def omega_t(terms: PairTerms, omega: Omega) -> Tensor | float:
    """The factor from a difference of errors to a log-ratio, (B,) or a number (see `log_ratios`)."""
    if omega == "constant":
        return 0.5
    if terms.step_coefficient is None:
        raise ValueError('omega = "transition" needs a kernel that adds noise (eta > 0)')
    return terms.step_coefficient


def log_weights(terms: PairTerms, scale: float) -> tuple[Tensor, Tensor]:
    """`scale * log w` of the chosen and the rejected member, (B,) each."""
    return scale * _log_iw(terms.chosen), scale * _log_iw(terms.rejected)


def preference_metrics(scale: float, log_ratio_w: Tensor, log_ratio_l: Tensor, found: Preference) -> dict[str, Tensor]:
    """Implicit rewards (Eq. 8), their gap, accuracy with ties apart, and sigmoid(-logit), the slope of the loss.

    With importance weights also the applied weight, whether the pair was pruned, and whether the clip was active.
    """
    reward_w, reward_l, logit = scale * log_ratio_w.detach(), scale * log_ratio_l.detach(), found.logit.detach()
    metrics = {
        "reward_chosen": reward_w,
        "reward_rejected": reward_l,
        "reward_gap": reward_w - reward_l,
        "accuracy": (log_ratio_w > log_ratio_l).to(logit.dtype),
        "tie": (log_ratio_w == log_ratio_l).to(logit.dtype),
        "sigmoid_neg_logit": torch.sigmoid(-logit),
    }
    if found.weight is not None and found.mask is not None and found.clipped is not None:
        metrics |= {"weight": found.weight.detach(), "pruned": 1 - found.mask, "clipped": found.clipped}
    return metrics


def beta_equivalents(loss: PreferenceObjective) -> dict[str, float]:
    """beta as the paper, SalesforceAIResearch/DiffusionDPO (`beta_dpo`) and diffusers' research script count it.

    `inside = beta H / 2 * (...)` there is ours with the constant omega; empty for "transition", where none holds.
    """
    if loss.omega != "constant":
        return {}
    total = beta_h(loss)
    return {"paper": total / T, "salesforce": total, "diffusers": total / 2}


def _log_iw(branch: Branch | None) -> Tensor:
    if branch is None or branch.log_iw is None:
        raise ValueError("this objective needs importance weights of both members: with_importance_weights=True")
    return branch.log_iw
