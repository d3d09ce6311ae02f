"""Simulated people of known truth."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit


@dataclass(frozen=True)
class Crowd:
    """Each vote: P("a") = sigmoid(ability_j preference_i + side_j if "a" is left, else - side_j), a share of ties aside."""

    preference: np.ndarray  # (items,)
    ability: np.ndarray  # (people,)
    side: np.ndarray  # (people,)
    ties: float = 0.0

    def vote(self, item: int, person: int, a_is_left: bool, rng: np.random.Generator) -> str:
        if rng.random() < self.ties:
            return "tie"
        lean = self.side[person] * (1 if a_is_left else -1)
        return "a" if rng.random() < expit(self.ability[person] * self.preference[item] + lean) else "b"

    def votes(self, rng: np.random.Generator) -> list[tuple[int, int, str, bool]]:
        """(item, person, label, "a" is left) of everybody on everything."""
        found = []
        for item in range(len(self.preference)):
            for person in range(len(self.ability)):
                left = bool(rng.random() < 0.5)
                found.append((item, person, self.vote(item, person, left, rng), left))
        return found
