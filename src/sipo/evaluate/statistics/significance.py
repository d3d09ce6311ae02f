"""Is a difference more than chance? Two tests over prompts, and Holm's correction for several comparisons."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from sipo.evaluate.statistics.bootstrap import group_numbers, resampled_means
from sipo.evaluate.statistics.verdicts import POINTS, Verdict, differences_of


@dataclass(frozen=True)
class Significance:
    """Two-sided p-values, both over prompts, because samples of one prompt are not independent of each other.

    `p_mean`: bootstrap test that the mean difference of the scores is 0; None with a single prompt, or where a verdict
    has no difference. `p_sign`: exact sign test that a prompt is won as often as lost; `prompts_tied` are not counted.
    """

    p_mean: float | None
    p_sign: float
    prompts_won: int
    prompts_lost: int
    prompts_tied: int


def significance(verdicts: Sequence[Verdict], tie_margin: float = 0.0) -> Significance:
    """Both tests of `verdicts`. With differences, a prompt is won where their mean exceeds `tie_margin`.

    Without differences, a prompt is won where its wins outnumber its losses, as if every difference were 1, 0 or -1.
    """
    prompts, differences = [verdict.prompt for verdict in verdicts], differences_of(verdicts)
    if differences is None:
        signs = [2 * POINTS[verdict.result] - 1 for verdict in verdicts]
        means, margin, p_mean = _prompt_means(signs, prompts), 0.0, None
    else:
        means, margin = _prompt_means(differences, prompts), tie_margin
        p_mean = bootstrap_p(differences, prompts)
    won, lost = int((means > margin).sum()), int((means < -margin).sum())
    return Significance(p_mean, sign_p(won, lost), won, lost, len(means) - won - lost)


def bootstrap_p(
    values: Sequence[float], groups: Sequence[Hashable], num_resamples: int = 10_000, seed: int = 0
) -> float | None:
    """Two-sided p-value of a mean of 0, resampling `groups`; None where there is a single one.

    The share of resamples whose mean is at least as far from the sample's mean as that is from 0, the sample itself
    included (Davison and Hinkley 1997, section 4.4): never below 1 / (num_resamples + 1).
    """
    mean, means = resampled_means(values, groups, num_resamples, seed)
    if means is None:
        return None
    rounding = 1e-12 * float(np.abs(np.asarray(values, dtype=np.float64)).max())
    return float((1 + np.count_nonzero(np.abs(means - mean) >= abs(mean) - rounding)) / (num_resamples + 1))


def sign_p(won: int, lost: int) -> float:
    """Exact two-sided sign test: the probability of a split at least as uneven when both sides are equally likely."""
    from scipy.stats import binomtest  # half a second of imports, which reports and trainings can do without

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down adjustment, in the order of `p_values`; None is not counted as a test.

    Calling adjusted values below 0.05 significant keeps the chance of any false finding below 0.05.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _prompt_means(values: Sequence[float], prompts: Sequence[Hashable]) -> np.ndarray:
    """(N,) values -> (G,) means, in the order in which the prompts first occur."""
    index = group_numbers(prompts)
    return np.bincount(index, np.asarray(values, dtype=np.float64)) / np.bincount(index)
