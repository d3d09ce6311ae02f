"""Bradley-Terry: one strength for each of several systems, from who beat whom."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from sipo.evaluate.statistics.bootstrap import CONFIDENCE, group_numbers


@dataclass(frozen=True)
class Strength:
    """A system's log-strength (their mean is 0) with its interval; a difference d is a win probability 1 / (1 + e^-d)."""

    name: str
    value: float
    low: float
    high: float


def bradley_terry(wins: np.ndarray, prior: float = 0.5) -> np.ndarray:
    """(S,) log-strengths, mean 0, that maximise sum_ij wins_ij log sigmoid(s_i - s_j) (Bradley and Terry 1952).

    wins: (S, S), row beat column; a tie counts half in both places. prior: ties added to each pair that met, which keeps
    strengths finite where a system won all or none; 0 for the plain maximum.
    """
    met = (wins + wins.T) > 0
    counts = wins + prior / 2 * met

    def loss(s: np.ndarray) -> tuple[float, np.ndarray]:
        d = s[:, None] - s[None, :]
        expected = (counts + counts.T) / (1 + np.exp(-d))  # wins of the row, were the strengths right
        value = (
            counts * np.logaddexp(0, -d)
        ).sum() + 0.5 * s.mean() ** 2  # the second fixes the mean, and nothing else
        return value, (expected - counts).sum(1) + s.mean() / len(s)

    found = minimize(loss, np.zeros(len(wins)), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return found - found.mean()


def strengths(
    names: Sequence[str],
    results: Sequence[tuple[int, int, float]],
    items: Sequence[Hashable],
    num_resamples: int = 400,
    seed: int = 0,
    prior: float = 0.5,
) -> list[Strength]:
    """The systems' strengths, best first, with 95% percentile bootstrap intervals over `items`.

    results: (first, second, points of the first: 1, 0.5 or 0) of each comparison; items: what each was about, such as its
    prompt: votes on one prompt are drawn together.
    """
    first, second, points = (np.array(column) for column in zip(*results, strict=True))
    index = group_numbers(items)
    num_items = index.max() + 1
    table = np.zeros((num_items, len(names), len(names)))  # the wins of each item
    np.add.at(table, (index, first, second), points)
    np.add.at(table, (index, second, first), 1 - points)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_items, np.full(num_items, 1 / num_items), size=num_resamples)  # (R, items)
    resampled = np.tensordot(drawn, table, axes=1)  # (R, S, S)
    values = bradley_terry(table.sum(0), prior)
    draws = np.array([bradley_terry(wins, prior) for wins in resampled])
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    found = [Strength(*each) for each in zip(names, values.tolist(), low.tolist(), high.tolist(), strict=True)]
    return sorted(found, key=lambda strength: -strength.value)
