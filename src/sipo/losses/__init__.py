"""The objectives, one a file: a frozen dataclass of hyperparameters from PairTerms to per-pair losses and metrics."""

from sipo.losses.common import Objective, beta_equivalents, resolve_horizon
from sipo.losses.diffusion_dpo import DiffusionDPO
from sipo.losses.dpo_cm import DPOCM
from sipo.losses.sft import SFT
from sipo.losses.sipo import SIPO

LOSSES: dict[str, type] = {"sft": SFT, "diffusion_dpo": DiffusionDPO, "dpo_cm": DPOCM, "sipo": SIPO}

__all__ = ["DPOCM", "LOSSES", "SFT", "SIPO", "DiffusionDPO", "Objective", "beta_equivalents", "resolve_horizon"]
