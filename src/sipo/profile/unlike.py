"""How far from the base's own samples the pairs lie: "unlike" data (SIPO paper, section 3.1) in numbers.

A member's prediction error under the base is compared, stratum of timesteps by stratum, with the errors on samples that
the base drew itself for the same prompts.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Errors:
    """`mse(base, target)` of one kind of media: (N, draws), draw k in stratum k of the timesteps. coefficient: of the same
    shape, minus the expected log importance weight per unit of error (see `sipo.kernels.step_coefficient`)."""

    values: np.ndarray
    coefficient: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """(N, draws): `w(t)` of Eq. 5 against the posterior, from its expected logarithm; in (0, 1]."""
        return np.exp(-self.coefficient * self.values)


def log_ratios(errors: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(N, draws), (M, draws) -> (N,): a member's log errors less those of the base's own samples, mean over strata.

        mean_k ( log errors[i, k] - mean_j log own[j, k] )

    0: predicted as well as an own sample; log 2: twice the error. Strata count alike however large their errors are.
    """
    return (np.log(errors) - np.log(own).mean(0)).mean(1)


def separation(values: np.ndarray, others: np.ndarray) -> float:
    """The probability that a value exceeds one of the others, ties counted half (the area under the ROC curve).

    1/2: alike; 1: every value lies above all others. O((N + M) log M).
    """
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(others)))
