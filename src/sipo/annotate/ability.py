"""An item-response model of votes: how clear each item is, how able each annotator, and how drawn to one side."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from scipy.stats import norm

from sipo.evaluate.statistics.bootstrap import group_numbers

ABILITY_SPREAD = 0.7  # of log abilities, before any vote is seen
SIDE_SPREAD = 1.0
NODES = norm.ppf((np.arange(41) + 0.5) / 41)  # equally likely values of a standard normal


@dataclass(frozen=True)
class Abilities:
    """Of annotators, in the order in which they first occur: `ability` (1 is typical, 0 is chance), its standard error on
    the log scale, and `side` (positive: drawn to the left). Of items likewise: `preference`, the posterior mean of the log
    odds that a typical annotator prefers "a". `spread`: of the items' preferences.
    """

    annotators: tuple[Hashable, ...]
    ability: np.ndarray
    log_error: np.ndarray
    side: np.ndarray
    items: tuple[Hashable, ...]
    preference: np.ndarray
    spread: float

    @property
    def difficulty(self) -> np.ndarray:
        """The probability that a typical annotator votes against the item's better side: 1/2 is the hardest."""
        return expit(-np.abs(self.preference))


@dataclass(frozen=True)
class _Votes:
    item: np.ndarray  # (N,) numbers
    person: np.ndarray  # (N,) numbers
    points: np.ndarray  # (N,)
    sign: np.ndarray  # (N,) 1 where "a" was left, else -1
    num_items: int
    num_people: int


def item_response(
    items: Sequence[Hashable], annotators: Sequence[Hashable], points: Sequence[float], left: Sequence[bool]
) -> Abilities:
    """Fit P(vote is "a") = sigmoid(ability_j preference_i + side_j (1 if "a" is left else -1)) to N votes.

    points: 1 for "a", 0 for "b", 0.5 for a tie (half a vote each way). Preferences ~ N(mu, spread^2) are integrated out;
    mu, spread, abilities (log ability ~ N(0, 0.7^2)) and sides (~ N(0, 1)) maximise what remains. The two-parameter
    logistic model with the discrimination as the annotator's ability, as in Whitehill et al. 2009.
    """
    i, j = group_numbers(items), group_numbers(annotators)
    sign = np.where(left, 1.0, -1.0)
    votes = _Votes(i, j, np.asarray(points, dtype=np.float64), sign, int(i.max()) + 1, int(j.max()) + 1)
    start = np.zeros(2 * votes.num_people + 2)
    found = minimize(lambda x: _loss(x, votes)[:2], start, jac=True, method="L-BFGS-B").x
    _, _, posterior, preferences = _loss(found, votes)
    log_ability, side, (_, log_spread) = np.split(found, [votes.num_people, 2 * votes.num_people])
    names, things = tuple(dict.fromkeys(annotators)), tuple(dict.fromkeys(items))
    errors = _errors(found, votes)
    return Abilities(
        names, np.exp(log_ability), errors, side, things, posterior @ preferences, float(np.exp(log_spread))
    )


def _loss(x: np.ndarray, votes: _Votes) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """(negative log posterior, its gradient, (I, Q) posterior of each item over the nodes, (Q,) preferences there)."""
    log_ability, side, (mean, log_spread) = np.split(x, [votes.num_people, 2 * votes.num_people])
    ability, spread = np.exp(log_ability)[votes.person, None], np.exp(log_spread)
    preference = mean + spread * NODES  # (Q,)
    z = ability * preference + (side[votes.person] * votes.sign)[:, None]  # (N, Q)
    log_likelihood = np.zeros((votes.num_items, len(NODES)))
    np.add.at(log_likelihood, votes.item, votes.points[:, None] * z - np.logaddexp(0, z))
    by_item = logsumexp(log_likelihood, axis=1, keepdims=True)
    posterior = np.exp(log_likelihood - by_item)  # (I, Q)
    slope = posterior[votes.item] * (expit(z) - votes.points[:, None])  # (N, Q): of the loss with respect to z
    by_preference = slope * ability
    gradient = [
        np.bincount(votes.person, (by_preference * preference).sum(1)) + log_ability / ABILITY_SPREAD**2,
        np.bincount(votes.person, slope.sum(1) * votes.sign) + side / SIDE_SPREAD**2,
        [by_preference.sum(), (by_preference * spread * NODES).sum()],
    ]
    prior = (log_ability**2).sum() / ABILITY_SPREAD**2 + (side**2).sum() / SIDE_SPREAD**2
    return float(prior / 2 - by_item.sum()), np.concatenate(gradient), posterior, preference


def _errors(x: np.ndarray, votes: _Votes, step: float = 1e-4) -> np.ndarray:
    """Standard errors of the log abilities, from the curvature at the maximum (differences of the gradient)."""
    moves = step * np.eye(len(x))
    curvature = np.array([(_loss(x + move, votes)[1] - _loss(x - move, votes)[1]) / (2 * step) for move in moves])
    return np.sqrt(np.diag(np.linalg.inv(curvature))[: votes.num_people])
