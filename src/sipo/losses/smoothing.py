"""Labels that may be wrong: conservative DPO (Mitchell 2023) for any pairwise objective, with a doubt for each pair."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from sipo.losses.common import Objective, members
from sipo.terms import PairTerms

Smoothing = float | Literal["strength"]


def doubt_of(smoothing: Smoothing, strength: Tensor) -> Tensor | None:
    """The probability that a pair's label is wrong, (B,): `smoothing` itself, or 1 - strength; None without any doubt."""
    if smoothing == "strength":
        return 1 - strength
    return strength.new_full(strength.shape, float(smoothing)) if smoothing else None


def smoothed(objective: Objective, terms: PairTerms, doubt: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
    """`(1 - p) L(w, l) + p L(l, w)`, p the doubt: the expected loss if the members are swapped with probability p.

    Of Diffusion-DPO that is `-(1 - p) log sigmoid(beta H m) - p log sigmoid(-beta H m)` (cDPO, Eq. 3), whose margin has
    the finite optimum `log((1 - p) / p) / (beta H)`. Of D3PO it is the same on every step of two trajectories. Metrics are
    those of the labels as they are.
    """
    losses, metrics = objective(terms)
    if doubt is None:
        return losses, metrics
    chosen, rejected = members(terms)
    swapped, _ = objective(replace(terms, chosen=rejected, rejected=chosen))
    return (1 - doubt) * losses + doubt * swapped, metrics
