"""How many prompts and annotators does a study need? Exact probabilities of the two-stage majority, no simulation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from scipy.stats import beta, multinomial, norm

from sipo.annotate.votes import Rule, majority
from sipo.errors import UsageError
from sipo.tables import markdown_table

NODES = 200  # of the integral over items


@dataclass(frozen=True)
class People:
    """How single votes come about.

    win_rate: of a single vote, ties counted half. ties: the share of ties. likeness: the correlation of two people's votes
    on one item (0: every item is a coin; 1: all people agree on each), from Beta-distributed items; 0.3 is common.
    """

    win_rate: float
    ties: float = 0.15
    likeness: float = 0.3


def final_shares(people: People, groups: int, group_size: int, rule: Rule = "tie") -> tuple[float, float, float]:
    """The shares of wins, losses and ties among the items' final labels, with infinitely many items."""
    a, b = _beta(people)
    middles = (np.arange(NODES) + 0.5) / NODES
    decided = beta.ppf(middles, a, b)  # of each of equally likely items: the probability of "a" among non-ties
    total = np.zeros(3)
    for p in decided:
        one = np.array([(1 - people.ties) * p, (1 - people.ties) * (1 - p), people.ties])
        total += _majority_shares(_majority_shares(one, group_size, rule), groups, rule)
    wins, losses, ties = total / NODES
    return float(wins), float(losses), float(ties)


def items_needed(people: People, groups: int, group_size: int, power: float = 0.8, rule: Rule = "tie") -> int:
    """Items for which the 95% interval of the win rate excludes one half with probability `power` (normal approximation).

    N = ((z_0.975 + z_power) s / |w - 1/2|)^2, with w and s^2 the mean and variance of an item's points (1, 1/2, 0).
    Raises ValueError for a win rate of one half, which no number of items tells from itself.
    """
    if math.isclose(people.win_rate, 0.5):
        raise ValueError("A win rate of one half cannot be told from one half.")
    wins, _, ties = final_shares(people, groups, group_size, rule)
    mean = wins + ties / 2
    variance = wins + ties / 4 - mean**2
    z = norm.ppf(0.975) + norm.ppf(power)
    return math.ceil(z**2 * variance / (mean - 0.5) ** 2)


def _beta(people: People) -> tuple[float, float]:
    """Beta(a, b) of p, the probability of "a" in a vote that is no tie: mean as the win rate asks, correlation `likeness`."""
    mean = 0.5 + (people.win_rate - 0.5) / (1 - people.ties)
    if not (0 < mean < 1 and 0 < people.likeness < 1 and 0 <= people.ties < 1):
        raise ValueError(f"A win rate of {people.win_rate} with {people.ties} ties is impossible.")
    total = 1 / people.likeness - 1
    return mean * total, (1 - mean) * total


@cache
def _outcomes(size: int, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """All counts (a, b, tie) of `size` votes (K, 3), and the number of the label that each makes (K,)."""
    labels = ("a", "b", "tie")
    counts = [c for c in product(range(size + 1), repeat=3) if sum(c) == size]
    made = [labels.index(majority(["a"] * a + ["b"] * b + ["tie"] * t, rule)) for a, b, t in counts]
    return np.array(counts), np.array(made)


def _majority_shares(shares: np.ndarray, size: int, rule: Rule) -> np.ndarray:
    """(3,) probabilities of a vote -> (3,) of the majority of `size` independent ones."""
    counts, made = _outcomes(size, rule)
    probabilities = multinomial.pmf(counts, size, shares / shares.sum())
    return np.bincount(made, probabilities, minlength=3)


DESIGNS = ((1, 1), (1, 3), (3, 1), (1, 12), (3, 4))  # groups, people in each


def power_table(rates: Sequence[float], ties: float, likeness: float, power: float, rule: Rule) -> str:
    """Items needed, a row a win rate, a column a design. Raises UsageError for an impossible rate."""
    try:
        rows = [
            (f"{100 * rate:g}%", *(f"{items_needed(People(rate, ties, likeness), *d, power, rule):,}" for d in DESIGNS))
            for rate in rates
        ]
    except ValueError as error:
        raise UsageError(f"--win-rate: {error}") from error
    head = ("win rate of a vote", *(f"{groups} x {size}" for groups, size in DESIGNS))
    note = (
        f"Items for which the 95% interval of the final win rate clears one half with probability {power:g}, by groups x\n"
        f"annotators in each; {100 * ties:g}% of the votes are ties, two people's votes correlate by {likeness:g}."
    )
    return f"{markdown_table(head, rows)}{note}"
