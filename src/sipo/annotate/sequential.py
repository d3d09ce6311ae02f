"""An interval that stays honest however often one looks, and whenever one stops."""

from collections.abc import Sequence

import numpy as np

GRID = np.linspace(0, 1, 1001)


def sequential_interval(points: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of `points` (each in [0, 1], in the order in which they came), valid at every moment.

    A confidence sequence: with probability `confidence` it holds the mean at all sizes of the study at once, so that a
    study may be stopped when it clears one half. Hedged capital process with predictable plug-in bets (Waudby-Smith and
    Ramdas 2023, Theorem 3): m is excluded once a gambler against the mean m has multiplied their money 2 / alpha times.
    It is wider than the interval of a study whose size was fixed. (0, 1) without points.
    """
    alive = _alive(np.asarray(points, dtype=np.float64), 1 - confidence)
    inside = GRID[alive]
    if not len(inside):  # all candidates were excluded at some moment, which happens with probability 1 - confidence
        return float(np.mean(points)), float(np.mean(points))
    return float(max(inside[0] - 1e-3, 0.0)), float(min(inside[-1] + 1e-3, 1.0))


def _alive(points: np.ndarray, alpha: float) -> np.ndarray:
    """Which means of `GRID` were never excluded."""
    alive = np.ones(len(GRID), dtype=bool)
    up = down = np.zeros(len(GRID))  # log capital of bets that the mean is higher, and lower
    total, squares = 0.5, 0.25  # of the predictable mean and variance, which know the past alone
    for t, x in enumerate(points, start=1):
        variance = squares / t
        bet = np.sqrt(2 * np.log(2 / alpha) / (variance * t * np.log(t + 1)))
        with np.errstate(divide="ignore"):
            up = up + np.log1p(np.minimum(bet, 0.5 / GRID) * (x - GRID))
            down = down + np.log1p(-np.minimum(bet, 0.5 / (1 - GRID)) * (x - GRID))
        alive &= np.maximum(up, down) < np.log(2 / alpha)
        total += x
        squares += (x - total / (t + 1)) ** 2
    return alive
