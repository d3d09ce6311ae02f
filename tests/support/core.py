"""What the tests of the core share: schedules, tolerances, draws; in float64, as the golden numbers are."""

import torch
from torch import Tensor

from sipo import FlowSchedule, VPSchedule

KERNEL_PLACES = {"rtol": 0, "atol": 5.1e-7}  # golden numbers printed with six decimals


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scaled_linear() -> Tensor:
    """abar of Stable Diffusion, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def cogvideox(f: float) -> Tensor:
    """abar of CogVideoX: shifted in SNR (f = 3: 2B, f = 1: 5B), then rescaled to zero terminal SNR, (1000,)."""
    abar = scaled_linear()
    root = (abar / (f + (1 - f) * abar)).sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def stable_diffusion(prediction: str = "epsilon") -> VPSchedule:
    return VPSchedule(scaled_linear(), prediction)  # type: ignore[arg-type]  # tests pass wrong names too


def every_schedule() -> dict[str, VPSchedule | FlowSchedule]:
    return {
        "epsilon": stable_diffusion("epsilon"),
        "v_prediction": VPSchedule(cogvideox(3), "v_prediction"),
        "sample": VPSchedule(cogvideox(1), "sample"),
        "flow": FlowSchedule(shift=3.0),
    }


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
