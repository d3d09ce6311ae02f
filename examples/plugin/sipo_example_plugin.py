"""An objective and a scorer of one's own."""

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image, ImageStat
from torch import Tensor
from torch.nn.functional import relu

from sipo.losses.common import Omega, beta_h, log_ratios, preference_metrics
from sipo.losses.formulas import Preference
from sipo.terms import PairTerms


@dataclass(frozen=True)
class Hinge:
    """`max(0, 1 - beta H m)`: the hinge of SLiC (Zhao et al. 2023) in place of Diffusion-DPO's sigmoid."""

    beta: float = 5.0
    omega: Omega = "constant"
    horizon: float | None = None  # H; None: T or K, see sipo.losses.resolve_horizon

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_importance_weights: ClassVar[bool] = False

    def __call__(self, terms: PairTerms) -> tuple[Tensor, dict[str, Tensor]]:
        scale, (rho_w, rho_l) = beta_h(self), log_ratios(terms, self.omega)  # (B,) each
        logit = scale * (rho_w - rho_l)
        found = Preference(relu(1 - logit), logit)
        return found.loss, preference_metrics(scale, rho_w, rho_l, found)


@dataclass(frozen=True)
class Brightness:
    """Mean brightness, from 0 (black) to 1 (white); the prompt plays no part."""

    name: str = "brightness"

    def __call__(self, media: list[Image.Image], prompts: list[str], metadata: list | None = None) -> list[float]:
        return [ImageStat.Stat(image.convert("L")).mean[0] / 255 for image in media]
