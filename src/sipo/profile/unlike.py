"""How far from the base the pairs lie: "unlike" data (SIPO paper, section 3.1) in numbers.

For some of the pairs the base draws a sample of its own for the same prompt. A member's prediction errors under the base are
compared with those on that sample, at the same timesteps and noise: prompts that ask for much are hard to predict whoever
drew them, and cancel.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Errors:
    """`mse(base, target)` of one kind of media, (N, draws), draw k at the k-th timestep. coefficient: of the same shape, minus
    the expected log importance weight per unit of error (see `sipo.kernels.step_coefficient`)."""

    values: np.ndarray
    coefficient: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """(N, draws): `w(t)` of Eq. 5 against the posterior, from its expected logarithm; in (0, 1]."""
        return np.exp(-self.coefficient * self.values)


def log_ratios(errors: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(N, draws) each -> (N, draws): `log errors - log own`. 0: as hard as the base's own sample; log 2: twice the error."""
    return np.log(errors) - np.log(own)
