"""The objectives, one a file: a frozen dataclass of hyperparameters from PairTerms to per-pair losses and metrics."""

from sipo.losses.capped import CappedDPO, CappedSIPO
from sipo.losses.common import Objective, beta_equivalents, resolve_horizon
from sipo.losses.d3po import D3PO
from sipo.losses.diffusion_dpo import DiffusionDPO
from sipo.losses.dpo_cm import DPOCM
from sipo.losses.dpop import DPOP
from sipo.losses.ipo import IPO
from sipo.losses.nca import NCA
from sipo.losses.profile import ProfileDPO
from sipo.losses.safeguard import SafeguardedDPO
from sipo.losses.sft import SFT
from sipo.losses.sipo import SIPO

LOSSES: dict[str, type] = {
    "sft": SFT,
    "diffusion_dpo": DiffusionDPO,
    "dpo_cm": DPOCM,
    "sipo": SIPO,
    "d3po": D3PO,
    "ipo": IPO,
    "dpop": DPOP,
    "nca": NCA,
    "safeguarded_dpo": SafeguardedDPO,
    "profile_dpo": ProfileDPO,
    "capped_dpo": CappedDPO,
    "capped_sipo": CappedSIPO,
}

__all__ = [
    "D3PO",
    "DPOCM",
    "DPOP",
    "IPO",
    "LOSSES",
    "NCA",
    "SFT",
    "SIPO",
    "CappedDPO",
    "CappedSIPO",
    "DiffusionDPO",
    "Objective",
    "ProfileDPO",
    "SafeguardedDPO",
    "beta_equivalents",
    "resolve_horizon",
]
