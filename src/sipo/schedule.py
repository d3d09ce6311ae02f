"""Gaussian paths `x_t = alpha_t x_0 + sigma_t eps`: noising, the training target, and what a prediction implies.

Two kinds. Variance-preserving (VP: Stable Diffusion, SDXL, CogVideoX): `t` is an index into `alphas_cumprod`, 0 the
least noisy. Flow matching (FLUX, SD3, Wan): `alpha = 1 - s`, `sigma = s`, and `t = 1000 s` is a float.

Shapes: `t` is (B,), samples are (B, ...) of any rank. Samples of half precision are computed in float32, float64 stays
float64; coefficients come from float64 (float32 on Apple's MPS, which has nothing wider).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

VPPrediction = Literal["epsilon", "v_prediction", "sample"]


def precise(device: torch.device) -> torch.dtype:
    """The widest float of a device, for coefficients whose differences cancel."""
    return torch.float32 if device.type == "mps" else torch.float64


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it is of half precision, else unchanged."""
    return x if x.dtype == torch.float64 else x.float()


def broadcast(coefficient: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) in the rank and dtype of `x`."""
    return coefficient.to(x.dtype).reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


@dataclass(frozen=True, eq=False)
class VPSchedule:
    """`x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps`.

    `alphas_cumprod` is (T,), non-increasing, in [0, 1), as diffusers' schedulers hold it; an `abar` of 0 (zero terminal
    SNR) is welcome. `prediction` is what the network outputs: "epsilon", "v_prediction" (`sqrt(abar) eps -
    sqrt(1 - abar) x_0`) or "sample" (`x_0`).

    Raises ValueError: not a decreasing 1-D table in [0, 1); an unknown prediction; "epsilon" with an `abar` of 0, where
    `x_0` cannot be recovered from `eps`.
    """

    alphas_cumprod: Tensor
    prediction: VPPrediction
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        abar = self.alphas_cumprod.detach()
        object.__setattr__(self, "alphas_cumprod", abar)
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction is {self.prediction!r}; a VP schedule knows epsilon, v_prediction, sample")
        if abar.ndim != 1 or not abar.is_floating_point() or len(abar) < 2:
            raise ValueError(f"alphas_cumprod must be a 1-D float tensor, not {abar.dtype} of {tuple(abar.shape)}")
        if not bool(((abar >= 0) & (abar < 1)).all()) or bool((abar.diff() > 0).any()):
            raise ValueError("alphas_cumprod must lie in [0, 1) and never increase with t")
        if self.prediction == "epsilon" and bool((abar == 0).any()):
            raise ValueError("alphas_cumprod reaches 0 (zero terminal SNR): epsilon cannot give x_0 there")

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """(B,) int64 -> alpha_t, sigma_t, (B,) each, on `t`'s device; `dtype` defaults to that of alphas_cumprod."""
        if t.device not in self._tables:  # one copy a device, so that a lookup never waits for the host
            self._tables[t.device] = self.alphas_cumprod.to("cpu", torch.float64).to(t.device, precise(t.device))
        abar = self._tables[t.device][t]  # (B,)
        dtype = dtype or self.alphas_cumprod.dtype
        return abar.sqrt().to(dtype), (1 - abar).sqrt().to(dtype)


@dataclass(frozen=True)
class FlowSchedule:
    """`x_s = (1 - s) x_0 + s eps`, `s` in (0, 1], `t = num_train_timesteps * s`; the network predicts `v = eps - x_0`.

    `s = shift(u) = f u / (1 + (f - 1) u)` with `f` the model's own `shift` (FLUX: `e^mu`); `u` is the time on which
    sampling grids and training densities are laid. Raises ValueError for a non-positive shift or number of timesteps.
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0

    def __post_init__(self):
        if self.num_train_timesteps < 1:
            raise ValueError(f"num_train_timesteps is {self.num_train_timesteps}; it must be positive")
        if not self.shift > 0:
            raise ValueError(f"shift is {self.shift}; it must be positive")

    @property
    def prediction(self) -> Literal["flow"]:
        return "flow"

    def alpha_sigma(self, t: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """(B,) -> 1 - s, s, (B,) each; `dtype` defaults to `t`'s own, or float32 where `t` is an integer."""
        s = t.to(precise(t.device)) / self.num_train_timesteps
        dtype = dtype or (t.dtype if t.is_floating_point() else torch.float32)
        return (1 - s).to(dtype), s.to(dtype)

    def shifted(self, u: Tensor) -> Tensor:
        """u -> s, any shape."""
        return self.shift * u / (1 + (self.shift - 1) * u)

    def unshifted(self, s: Tensor) -> Tensor:
        """s -> u, the inverse of `shifted`."""
        return s / (self.shift - (self.shift - 1) * s)


Schedule = VPSchedule | FlowSchedule


def add_noise(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """`x_t = alpha_t x_0 + sigma_t eps`, (B, ...)."""
    x0, eps = at_least_float32(x0), at_least_float32(eps)
    alpha, sigma = (broadcast(c, x0) for c in schedule.alpha_sigma(t, x0.dtype))
    return alpha * x0 + sigma * eps


def training_target(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """What the network is asked to predict, (B, ...)."""
    x0, eps = at_least_float32(x0), at_least_float32(eps)
    match schedule.prediction:
        case "epsilon":
            return eps
        case "sample":
            return x0
        case "flow":
            return eps - x0
        case "v_prediction":
            alpha, sigma = (broadcast(c, x0) for c in schedule.alpha_sigma(t, x0.dtype))
            return alpha * eps - sigma * x0


def predict_x0_eps(schedule: Schedule, pred: Tensor, xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """`(x0_hat, eps_hat)`, (B, ...) each, that a prediction at `x_t` implies: the inverse of `training_target`."""
    pred, xt = at_least_float32(pred), at_least_float32(xt)
    alpha, sigma = (broadcast(c, xt) for c in schedule.alpha_sigma(t, xt.dtype))
    match schedule.prediction:
        case "epsilon":
            return (xt - sigma * pred) / alpha, pred
        case "sample":
            return pred, (xt - alpha * pred) / sigma
        case "flow":
            return xt - sigma * pred, xt + alpha * pred
        case "v_prediction":
            return alpha * xt - sigma * pred, sigma * xt + alpha * pred


def previous_timestep(schedule: Schedule, t: Tensor, num_inference_steps: int) -> Tensor:
    """`t' <= t`, (B,): where one step of a sampler of K = `num_inference_steps` steps leads from `t`.

    VP: `max(t - T // K, 0)`, the clamp of DDPO (kvablack/ddpo-pytorch). Flow: `u' = max(u - 1/K, 1/K)` on the unshifted
    time; from `u <= 1/K` the step is empty. Raises ValueError unless 1 <= K (<= T on a VP schedule).
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps is {num_inference_steps}; it must be positive")
    if isinstance(schedule, VPSchedule):
        if num_inference_steps > schedule.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}, over the {schedule.num_train_timesteps} of training"
            )
        return (t - schedule.num_train_timesteps // num_inference_steps).clamp(min=0)
    t = t if t.is_floating_point() else t.float()
    u = schedule.unshifted(t.to(precise(t.device)) / schedule.num_train_timesteps)
    previous = schedule.shifted((u - 1 / num_inference_steps).clamp(min=1 / num_inference_steps))
    return torch.minimum((previous * schedule.num_train_timesteps).to(t.dtype), t)
