"""One sampler step `x_t -> x_s` as a Gaussian, and the importance weight between two such Gaussians.

Every kernel has one form, `mean = c_x x_0 + c_eps eps` with a `std`. Fed with the data's own (x_0, eps) it is the
forward posterior `q(x_s | x_t, x_0)`; fed with what the network implies, (x0_hat, eps_hat), it is the model's
`p_theta(x_s | x_t)`.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sipo.schedule import FlowSchedule, Schedule, at_least_float32, broadcast, precise


class Kernel(Protocol):
    """A sampler's step. `deterministic`: it adds no noise, so that densities and importance weights do not exist."""

    @property
    def deterministic(self) -> bool: ...

    def coefficients(self, schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_x, c_eps, std of the step from `t` to `s`, (B,) each, in the device's widest float."""
        ...


@dataclass(frozen=True)
class DDIM:
    """DDIM(eta) on any Gaussian path (Song et al. 2021, Eq. 12, 16); `eta = 1` is the exact Bayes posterior.

        std^2 = eta^2 (sigma_s^2 / sigma_t^2) (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)
        mean  = alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps

    On a VP path this is DDPO's step, with K = T the textbook DDPM posterior. On a flow path it keeps the marginals, and
    `eta = 0` is the Euler step. Raises ValueError unless 0 <= eta <= 1.
    """

    eta: float = 1.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; it must lie in [0, 1]")

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def coefficients(self, schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha_t, sigma_t = schedule.alpha_sigma(t, precise(t.device))
        alpha_s, sigma_s = schedule.alpha_sigma(s, precise(s.device))
        ratio = torch.where(alpha_s > 0, alpha_t / alpha_s, 1.0)  # alpha_s = 0 only on an empty step at the very end
        var = self.eta**2 * (sigma_s / sigma_t) ** 2 * (sigma_t**2 - ratio**2 * sigma_s**2).clamp(min=0)
        return alpha_s, (sigma_s**2 - var).clamp(min=0).sqrt(), var.sqrt()


@dataclass(frozen=True)
class FlowSDE:
    """Flow-GRPO's step (Liu et al. 2025), `d = s' - s < 0`; it inflates the marginal variance. Flow schedules only.

        g^2  = a^2 s / (1 - s)          (s' in the denominator where s = 1)
        mean = x_s (1 + g^2 d / (2 s)) + v (1 + g^2 (1 - s) / (2 s)) d,    std = g sqrt(-d)

    With `x_s = (1 - s) x_0 + s eps` and `v = eps - x_0` the mean is `(1 - s') x_0 + (s' + g^2 d / (2 s)) eps`.
    Raises ValueError unless noise_level > 0.
    """

    noise_level: float = 0.7

    def __post_init__(self):
        if not 0 < self.noise_level < math.inf:
            raise ValueError(
                f"noise_level is {self.noise_level}; it must be positive and finite (without noise: DDIM(eta=0))"
            )

    @property
    def deterministic(self) -> bool:
        return False

    def coefficients(self, schedule: Schedule, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not isinstance(schedule, FlowSchedule):
            raise ValueError("FlowSDE steps along a flow path; a VP schedule takes DDIM")
        alpha_t, sigma_t = schedule.alpha_sigma(t, precise(t.device))
        alpha_s, sigma_s = schedule.alpha_sigma(s, precise(s.device))
        g2 = self.noise_level**2 * sigma_t / torch.where(sigma_t == 1, alpha_s, alpha_t)
        d = sigma_s - sigma_t
        return alpha_s, sigma_s + g2 * d / (2 * sigma_t), (g2 * -d).clamp(min=0).sqrt()


KERNELS: dict[str, type[DDIM] | type[FlowSDE]] = {"ddim": DDIM, "flow_sde": FlowSDE}


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normals: `mean` (B, ...), `std` anything that broadcasts to it, or (B,).

    `transition` gives `std` as (B, 1, ..., 1). A row with `std = 0` is an empty step. `deterministic` says that no row
    has a density because the kernel adds no noise.
    """

    mean: Tensor
    std: Tensor
    deterministic: bool = False

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """`mean + std z`, (B, ...), with z drawn on the generator's device."""
        device = generator.device if generator is not None else self.mean.device
        z = torch.randn(self.mean.shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + _aligned(self) * z.to(self.mean.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """(B,): log-density of `x` (B, ...), summed over non-batch dimensions, with the normalising constant.

        Raises ValueError for a deterministic step.
        """
        _require_density(self)
        std = _aligned(self)
        log_density = -0.5 * ((at_least_float32(x) - self.mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)
        return log_density.reshape(len(log_density), -1).sum(1)


def transition(kernel: Kernel, schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor, s: Tensor) -> Gaussian:
    """The step from `t` to `s`, (B,) each, as a Gaussian over x_s (B, ...).

    Truth in, `(x_0, eps)`: `q(x_s | x_t, x_0)`. Prediction in, `(x0_hat, eps_hat)`: `p_theta(x_s | x_t)`.
    """
    x0, eps = at_least_float32(x0), at_least_float32(eps)
    c_x, c_eps, std = (broadcast(c, x0) for c in kernel.coefficients(schedule, t, s))
    return Gaussian(c_x * x0 + c_eps * eps, std, kernel.deterministic)


def step_coefficient(kernel: Kernel, schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """`k^2 / (2 std^2)`, (B,), in the network's own prediction space: minus the expected log w per unit of its mse.

    A prediction error `e` moves x0_hat by `a e` and eps_hat by `b e`, hence the mean by `k e`, `k = a c_x + b c_eps`.
    Empty steps have 0. Raises ValueError for a deterministic kernel, whose coefficient is infinite.
    """
    if kernel.deterministic:
        raise ValueError(f"{kernel} adds no noise: its step has no density")
    c_x, c_eps, std = kernel.coefficients(schedule, t, s)
    alpha, sigma = schedule.alpha_sigma(t, precise(t.device))
    match schedule.prediction:
        case "epsilon":
            a, b = -sigma / alpha, torch.ones_like(alpha)
        case "sample":
            a, b = torch.ones_like(alpha), -alpha / sigma
        case "flow" | "v_prediction":
            a, b = -sigma, alpha
    k = a * c_x + b * c_eps
    empty = std == 0
    return torch.where(empty, 0.0, 0.5 * (k / torch.where(empty, 1.0, std)) ** 2)


def log_importance_weight(p: Gaussian, q: Gaussian, x_s: Tensor | None = None, under: Gaussian | None = None) -> Tensor:
    """(B,): `log p(x_s) - log q(x_s)`, the MEAN over non-batch dimensions (Eq. 5, averaged as in DDPO).

    With `x_s` None its expectation for `x_s ~ under` (default `q`), in closed form. Elements whose step is empty
    (std 0) count as 0 and carry no gradient. Raises ValueError for deterministic steps, or if both `x_s` and `under`
    are given.
    """
    if x_s is not None and under is not None:
        raise ValueError("give x_s, or `under` for the expectation, not both")
    _require_density(p, q)
    std_p, std_q = _aligned(p), _aligned(q)
    empty = (std_p == 0) | (std_q == 0)
    std_p, std_q = torch.where(empty, 1.0, std_p), torch.where(empty, 1.0, std_q)
    if x_s is not None:
        z_p, z_q = (at_least_float32(x_s) - p.mean) / std_p, (at_least_float32(x_s) - q.mean) / std_q
        spread = 0.0
    else:
        u = under or q
        z_p, z_q = (u.mean - p.mean) / std_p, (u.mean - q.mean) / std_q
        spread = 0.5 * _aligned(u) ** 2 * (std_q**-2 - std_p**-2)
    log_w = (std_q / std_p).log() + 0.5 * (z_q - z_p) * (z_q + z_p) + spread
    log_w = torch.where(empty, 0.0, log_w)
    return log_w.reshape(len(log_w), -1).mean(1)


def _aligned(g: Gaussian) -> Tensor:
    """`std` with trailing ones up to the rank of the mean."""
    return broadcast(g.std, g.mean)


def _require_density(*gaussians: Gaussian) -> None:
    if any(g.deterministic for g in gaussians):
        raise ValueError("a step without noise (eta = 0) has no density: importance weights need eta > 0")
