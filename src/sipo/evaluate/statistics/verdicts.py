"""Verdicts on pairs of samples, by scores or by people's votes: what every comparison, test and page starts from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sipo.evaluate.statistics.bootstrap import Estimate, bootstrap_mean

Result = Literal["win", "tie", "loss"]
POINTS: dict[Result, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True)
class Verdict:
    """The result of the first of two samples of one prompt and seed against the second.

    difference: the first's score minus the second's; None for a vote, which measures none. category: of the prompt.
    """

    prompt: str
    seed: int
    result: Result
    difference: float | None = None
    category: str | None = None


@dataclass(frozen=True)
class Tally:
    """Verdicts counted. Win rate: the share of wins, a tie counted half. Intervals are over prompts.

    difference: the mean difference of the scores; None unless every verdict has one.
    """

    num_pairs: int
    num_prompts: int
    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    difference: Estimate | None


def result_of(difference: float, tie_margin: float = 0.0) -> Result:
    """The first's result where its score minus the second's is `difference`; scores within `tie_margin` tie."""
    return "tie" if abs(difference) <= tie_margin else "win" if difference > 0 else "loss"


def tally(verdicts: Sequence[Verdict]) -> Tally:
    """Count `verdicts`. Raises `ValueError` without any."""
    prompts = [verdict.prompt for verdict in verdicts]
    points = [POINTS[verdict.result] for verdict in verdicts]
    differences = differences_of(verdicts)
    count = Counter(verdict.result for verdict in verdicts)
    return Tally(
        num_pairs=len(verdicts),
        num_prompts=len(set(prompts)),
        wins=count["win"],
        ties=count["tie"],
        losses=count["loss"],
        win_rate=bootstrap_mean(points, prompts),
        difference=None if differences is None else bootstrap_mean(differences, prompts),
    )


def differences_of(verdicts: Sequence[Verdict]) -> list[float] | None:
    """The verdicts' differences; None where one has none."""
    found = [verdict.difference for verdict in verdicts if verdict.difference is not None]
    return found if len(found) == len(verdicts) else None
