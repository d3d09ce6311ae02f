"""DPO on profile likelihoods: the log of the errors in the place of their difference."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sipo.losses import formulas
from sipo.losses.common import Omega, beta_h, check_preference, log_ratios, members, omega_t, preference_metrics
from sipo.terms import Branch, PairTerms


@dataclass(frozen=True)
class ProfileDPO:
    """Profile-likelihood DPO: `-log sigmoid(beta (rho_w - rho_l))`, `rho = (H / 2) r log(r / m)`.

    `m` is the policy's and `r` the reference's mean squared error.

    A Gaussian's log-likelihood with its variance profiled out is `-(d / 2) log mse` up to a constant, so this is the
    likelihood ratio of a model that also fits how large its errors are. To first order at the reference it is
    Diffusion-DPO (`r log(r / m) = r - m + ...`), hence the same beta. Further away it damps itself: the pull on the chosen
    is `r / m` times Diffusion-DPO's, which grows as its error falls and shrinks as the error rises; the push on the
    rejected is `r / m` times it too, which fades as its error grows.
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
        scale, plain = beta_h(self), log_ratios(terms, self.omega)
        found = formulas.diffusion_dpo(*profile_ratios(terms, self.omega), scale)
        return found.loss, preference_metrics(scale, *plain, found)


def profile_ratios(terms: PairTerms, omega: Omega) -> tuple[Tensor, Tensor]:
    """`omega_t r log(r / m)` of the chosen and the rejected member, (B,) each."""
    factor, (chosen, rejected) = omega_t(terms, omega), members(terms)
    return _profile_ratio(factor, chosen), _profile_ratio(factor, rejected)


def _profile_ratio(factor: Tensor | float, branch: Branch) -> Tensor:
    return factor * branch.reference_error * (branch.reference_error / branch.policy_error).log()
