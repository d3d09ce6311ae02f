"""Intervals by resampling prompts, not samples: samples of one prompt resemble each other."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
CHUNK = 2_000_000  # counts drawn at a time, to bound memory


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval; the bounds are None with a single prompt, which tells nothing about others."""

    value: float
    low: float | None
    high: float | None


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], num_resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """The mean of `values` (N,) with a 95% percentile bootstrap interval over `groups` (N labels: the prompts).

    A resample draws as many prompts as there are, with replacement, and takes the mean over all of their values
    (Davison and Hinkley 1997, section 3.8, strategy 1). Deterministic in `seed`; the draws depend on the number of
    groups alone, so that the interval of `-values` is exactly the mirrored one. Raises `ValueError` without values.
    """
    mean, means = resampled_means(values, groups, num_resamples, seed)
    if means is None:
        return Estimate(mean, None, None)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(mean, float(low), float(high))


def resampled_means(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable], num_resamples: int, seed: int
) -> tuple[float, np.ndarray | None]:
    """The mean of `values` (N,), and the means (R,) of resamples of their `groups`; None where there is one group."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or len(values) != len(groups):
        raise ValueError(f"Expected as many groups as values and at least one, found {len(values)} and {len(groups)}.")
    index, mean = group_numbers(groups), float(values.mean())
    sums, sizes = np.bincount(index, values), np.bincount(index).astype(np.float64)  # (G,), (G,)
    num_groups = len(sums)
    if num_groups == 1:
        return mean, None
    rng, means, left = np.random.default_rng(seed), [], num_resamples
    while left:  # how often each of G groups is drawn in G draws is multinomial
        rows = min(left, max(1, CHUNK // num_groups))
        counts = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=rows)  # (rows, G)
        means.append((counts @ sums) / (counts @ sizes))
        left -= rows
    return mean, np.concatenate(means)


def group_numbers(groups: Sequence[Hashable]) -> np.ndarray:
    """(N,) labels -> (N,) numbers from 0, in the order in which the labels first occur."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.array([order[group] for group in groups])
