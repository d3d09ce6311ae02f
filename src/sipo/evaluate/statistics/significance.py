"""Is a difference more than chance? Two tests over prompts, and Holm's correction for asking several times."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from sipo.evaluate.statistics.bootstrap import resampled_means


@dataclass(frozen=True)
class Significance:
    """Two-sided p-values, both over prompts, whose pictures are not independent of each other.

    `p_mean` (None with a single prompt): bootstrap test that the mean difference of the scores is 0. `p_sign`: exact
    sign test that a prompt's mean difference is as often above 0 as below; `prompts_tied` have no part in it.
    """

    p_mean: float | None
    p_sign: float
    prompts_won: int
    prompts_lost: int
    prompts_tied: int


def significance(
    differences: Sequence[float], prompts: Sequence[Hashable], tie_margin: float = 0.0, seed: int = 0
) -> Significance:
    """`differences` (N,) of paired scores, `prompts` (N,) their prompts; a mean within `tie_margin` of 0 is a tie."""
    means = _prompt_means(np.asarray(differences, dtype=np.float64), prompts)
    won, lost = int((means > tie_margin).sum()), int((means < -tie_margin).sum())
    return Significance(
        bootstrap_p(differences, prompts, seed=seed), sign_p(won, lost), won, lost, len(means) - won - lost
    )  # fmt: skip


def bootstrap_p(
    values: Sequence[float], groups: Sequence[Hashable], num_resamples: int = 10_000, seed: int = 0
) -> float | None:
    """Two-sided p-value of a mean of 0, resampling `groups`; None where there is a single one.

    The share of resamples whose mean lies at least as far from the sample's mean as that lies from 0, the sample itself
    counted in (Davison and Hinkley 1997, section 4.4): never below 1 / (num_resamples + 1).
    """
    mean, means = resampled_means(values, groups, num_resamples, seed)
    if means is None:
        return None
    rounding = 1e-12 * float(np.abs(np.asarray(values, dtype=np.float64)).max())
    return float((1 + np.count_nonzero(np.abs(means - mean) >= abs(mean) - rounding)) / (num_resamples + 1))


def sign_p(won: int, lost: int) -> float:
    """Exact two-sided sign test: the probability of a split at least as uneven when both sides are equally likely."""
    return 1.0 if won == lost else float(min(1.0, 2 * bdtr(min(won, lost), won + lost, 0.5)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down adjustment in the order given; None is not counted as a test.

    The adjusted value below 0.05 keeps the chance of any false finding among all of them below 0.05.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _prompt_means(values: np.ndarray, prompts: Sequence[Hashable]) -> np.ndarray:
    """(N,) values -> (G,) means, in the order in which the prompts first come."""
    order = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    index = np.array([order[prompt] for prompt in prompts])
    return np.bincount(index, values) / np.bincount(index)
