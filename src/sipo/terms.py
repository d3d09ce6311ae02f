"""A batch becomes `PairTerms`, all that an objective sees; the only place where policy and reference run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sipo.kernels import Gaussian, Kernel, log_importance_weight, step_coefficient, transition
from sipo.schedule import Schedule, add_noise, at_least_float32, predict_x0_eps, previous_timestep, training_target

Predict = Callable[[Tensor, Tensor], Tensor]
"""(x_t (N, ...), t (N,)) -> prediction (N, ...); the caller closes over the conditioning of all N rows."""


@dataclass(frozen=True)
class ImportanceWeight:
    """Which `w(x_t, t)` of Eq. 5 is formed.

    `denominator`: "posterior", `q(x_{t-1} | x_t, x_0)` of the data (Eq. 5, left); "old", `p_old(x_{t-1} | x_t)` of the
    policy that produced the data (Eq. 5, right); or "reference", `p_ref` in the place of `p_old`. `estimate`: "sampled", one draw of `x_{t-1} ~ q` per
    pair (the paper), or "expected", the mean of log w under q in closed form. Raises ValueError for any other value.
    """

    denominator: Literal["posterior", "reference", "old"] = "posterior"
    estimate: Literal["sampled", "expected"] = "sampled"

    def __post_init__(self):
        if self.denominator not in ("posterior", "reference", "old"):
            raise ValueError(f"denominator is {self.denominator!r}; it must be posterior, reference or old")
        if self.estimate not in ("sampled", "expected"):
            raise ValueError(f"estimate is {self.estimate!r}; it must be sampled or expected")


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, ...), (B, ...) -> (B,): squared error, mean over non-batch dimensions."""
    error = at_least_float32(prediction) - at_least_float32(target)
    return (error**2).reshape(len(error), -1).mean(1)


@dataclass(frozen=True, eq=False)
class Branch:
    """One side of a pair: (B, ...) each, float32; `reference` carries no gradient.

    `log_iw` (B,) is log w(x_t, t), a mean over dimensions, and carries the policy's gradient. `known_error` (B,) is the
    reference's error where that was computed before, and its prediction is not at hand.
    """

    target: Tensor
    policy: Tensor
    reference: Tensor | None = None
    log_iw: Tensor | None = None
    known_error: Tensor | None = None

    @property
    def policy_error(self) -> Tensor:
        """(B,): `mse(policy, target)`."""
        return mse(self.policy, self.target)

    @property
    def reference_error(self) -> Tensor:
        """(B,): `mse(reference, target)`; ValueError without a reference."""
        if self.known_error is not None:
            return self.known_error
        if self.reference is None:
            raise ValueError("this objective compares the policy with a reference, and the terms hold none")
        return mse(self.reference, self.target)

    @property
    def gain(self) -> Tensor:
        """(B,): `mse(reference, target) - mse(policy, target)`; ValueError without a reference."""
        return self.reference_error - self.policy_error


@dataclass(frozen=True, eq=False)
class PairTerms:
    """One batch as an objective sees it. `t`: (B,). `step_coefficient`: (B,), k^2 / (2 std^2) in prediction space."""

    chosen: Branch
    rejected: Branch | None
    t: Tensor
    step_coefficient: Tensor | None = None


def pair_terms(
    policy: Predict,
    reference: Predict | None,
    schedule: Schedule,
    kernel: Kernel,
    num_inference_steps: int,
    weight: ImportanceWeight,
    x0_chosen: Tensor,
    x0_rejected: Tensor | None,
    eps: Tensor,
    t: Tensor,
    z: Tensor | None = None,
    with_importance_weights: bool = False,
    old: Predict | None = None,
    reference_error: Tensor | None = None,
) -> PairTerms:
    """Noise both members with the same `t` (B,) and `eps` (B, ...), run the networks, and gather what objectives read.

    `eps` (N, ...) gives each member noise of its own, chosen rows first: that which it was sampled from (PNAPO).

    The networks see the chosen rows, then the rejected ones (N = 2B; N = B if `x0_rejected` is None), in one forward
    each: the reference and `old` first, under no-grad, then the policy. `old` is the policy that produced the data, for
    the denominator of that name; None if the reference did. `z` (B, ...) is the standard normal of the transition,
    shared by both members: `x_s = q.mean + q.std z`. `reference_error` (N,) takes the place of the reference where it is
    known for these x_0, eps and t. All that follows the networks is in float32 (float64 stays).

    Raises ValueError for an `eps` of neither length, if importance weights are asked for and the kernel is deterministic, or `z` is missing for the
    sampled estimate, or the network is missing that the denominator needs.
    """
    if with_importance_weights:
        _require_weight_inputs(weight, kernel, reference, old, z)
    members = 1 if x0_rejected is None else 2
    x0 = x0_chosen if x0_rejected is None else torch.cat([x0_chosen, x0_rejected])  # (N, ...)
    eps, t_all = eps if len(eps) == len(x0) else _repeat(eps, members), _repeat(t, members)
    if len(eps) != len(x0):
        raise ValueError(
            f"eps has {len(eps) // members} rows for {len(t)} pairs; it must have one a pair, or one a member"
        )
    s_all = previous_timestep(schedule, t_all, num_inference_steps)
    xt = add_noise(schedule, x0, eps, t_all)

    with torch.no_grad():
        pred_reference = None if reference is None else at_least_float32(reference(xt, t_all))
        pred_old = pred_reference if old is None else at_least_float32(old(xt, t_all))
    pred_policy = at_least_float32(policy(xt, t_all))  # (N, ...)

    def step(pred: Tensor | None) -> Gaussian:
        x0_hat, eps_hat = (x0, eps) if pred is None else predict_x0_eps(schedule, pred, xt, t_all)
        return transition(kernel, schedule, x0_hat, eps_hat, t_all, s_all)

    log_iw = None
    if with_importance_weights:
        q = step(None)
        denominators = {"posterior": None, "reference": pred_reference, "old": pred_old}
        denominator = step(denominators[weight.denominator])
        if weight.estimate == "expected" or z is None:
            log_iw = log_importance_weight(step(pred_policy), denominator, under=q)
        else:
            log_iw = log_importance_weight(step(pred_policy), denominator, x_s=q.mean + q.std * _repeat(z, members))

    target = training_target(schedule, x0, eps, t_all)

    def branch(member: int) -> Branch:
        rows = slice(member * len(t), (member + 1) * len(t))
        return Branch(
            target[rows],
            pred_policy[rows],
            None if pred_reference is None else pred_reference[rows],
            None if log_iw is None else log_iw[rows],
            None if reference_error is None else reference_error[rows],
        )

    coefficient = None
    if not kernel.deterministic:
        coefficient = step_coefficient(kernel, schedule, t, s_all[: len(t)]).to(pred_policy.dtype)
    return PairTerms(branch(0), branch(1) if members == 2 else None, t, coefficient)


@dataclass(frozen=True, eq=False)
class StepTerms:
    """One sampler step of two trajectories of a pair, as D3PO sees it.

    `chosen`, `rejected`: `log p_theta(x_s | x_t) / p_ref(x_s | x_t)` of the step that was taken, (B,), means over
    dimensions, with the policy's gradient. `t`: (B,).
    """

    chosen: Tensor
    rejected: Tensor
    t: Tensor


def step_terms(
    policy: Predict, reference: Predict, schedule: Schedule, kernel: Kernel, chosen: Tensor, rejected: Tensor, t: Tensor,
    s: Tensor,
) -> StepTerms:  # fmt: skip
    """The log-ratios of steps from `t` to `s`, (B,) each. `chosen`, `rejected`: (B, 2, ...), x_t and the x_s that followed.

    The networks see the chosen rows, then the rejected ones, the reference first and under no-grad. Raises ValueError for
    a kernel that adds no noise.
    """
    xt, xs = torch.cat([chosen, rejected]).unbind(1)  # (2B, ...) each
    t_all, s_all = _repeat(t, 2), _repeat(s, 2)

    def step(pred: Tensor) -> Gaussian:
        return transition(kernel, schedule, *predict_x0_eps(schedule, at_least_float32(pred), xt, t_all), t_all, s_all)

    with torch.no_grad():
        p_ref = step(reference(xt, t_all))
    ratio = log_importance_weight(step(policy(xt, t_all)), p_ref, x_s=xs)
    return StepTerms(ratio[: len(t)], ratio[len(t) :], t)


def term_metrics(terms: PairTerms) -> dict[str, Tensor]:
    """What the terms say whatever the objective: the mse and log w of each member that exist, (B,) each, detached."""
    metrics = {}
    for name, branch in (("chosen", terms.chosen), ("rejected", terms.rejected)):
        if branch is None:
            continue
        metrics[f"mse_policy_{name}"] = mse(branch.policy.detach(), branch.target)
        if branch.reference is not None or branch.known_error is not None:
            metrics[f"mse_reference_{name}"] = branch.reference_error
        if branch.log_iw is not None:
            metrics[f"log_iw_{name}"] = branch.log_iw.detach()
    return metrics


def _repeat(x: Tensor, members: int) -> Tensor:
    return torch.cat([x] * members)


def _require_weight_inputs(
    weight: ImportanceWeight, kernel: Kernel, reference: Predict | None, old: Predict | None, z: Tensor | None
) -> None:
    if kernel.deterministic:
        raise ValueError(f"{kernel} adds no noise: importance weights need a kernel with eta > 0")
    if weight.denominator == "reference" and reference is None:
        raise ValueError("the importance weight's denominator is the reference, and no reference was given")
    if weight.denominator == "old" and old is None and reference is None:
        raise ValueError(
            "the importance weight's denominator is the old policy, and neither it nor a reference was given"
        )
    if weight.estimate == "sampled" and z is None:
        raise ValueError("the sampled importance weight needs z, the standard normal of the transition")
