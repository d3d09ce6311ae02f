"""AI feedback: scored samples of the same prompts -> preference pairs, and the best sample of every prompt."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from sipo.evaluate.scores.score import Score

Mode = Literal["best-worst", "all"]


@dataclass(frozen=True)
class Candidate:
    """One scored sample: where its file lies, and what made it (a name, for the pair's record)."""

    path: Path
    score: Score
    model: str = ""

    @property
    def value(self) -> float:
        return self.score.value

    @property
    def is_right(self) -> bool:
        """What a judge said; where it says nothing of right and wrong, nothing is wrong."""
        return bool(self.score.details.get("correct", True))


@dataclass(frozen=True)
class LabelledPair:
    """`chosen` scores higher than `rejected` by `gap`, in the scorer's units."""

    prompt: str
    chosen: Candidate
    rejected: Candidate

    @property
    def gap(self) -> float:
        return self.chosen.value - self.rejected.value


@dataclass(frozen=True)
class Labels:
    """What came of the samples. `best`: of every prompt that has one, for supervised training.

    The counts say what did not become a pair: prompts with fewer than two scored samples, comparisons whose scores lay
    within the margin or whose better sample is wrong, samples without a score.
    """

    pairs: tuple[LabelledPair, ...]
    best: tuple[Candidate, ...]
    num_prompts: int
    num_alone: int
    num_ties: int
    num_wrong: int
    num_unscored: int


def label(
    candidates: Sequence[Candidate], mode: Mode = "best-worst", margin: float = 0.0, only_right: bool = False
) -> Labels:
    """Pairs of samples of one prompt (and of the same metadata), in the order in which the prompts first come.

    mode: "best-worst" pairs the highest score with the lowest, one pair a prompt; "all" pairs every two. A gap of 0 or
    below `margin` is a tie and dropped. `only_right`: the chosen sample, and a prompt's best, must be right by the judge
    (`correct` among the score's details). Of equal scores the first sample counts as the better one.
    """
    if margin < 0:
        raise ValueError(f"a margin of {margin} is negative")
    scored = [candidate for candidate in candidates if math.isfinite(candidate.value)]
    groups: dict[str, list[Candidate]] = {}
    for candidate in scored:
        sample = candidate.score.sample
        groups.setdefault(json.dumps([sample.prompt, sample.metadata], sort_keys=True), []).append(candidate)
    pairs, best, ties, wrong = [], [], 0, 0
    for group in groups.values():
        ranked = sorted(group, key=lambda candidate: -candidate.value)
        if ranked[0].is_right or not only_right:
            best.append(ranked[0])
        contrasts = [(ranked[0], ranked[-1])] if mode == "best-worst" else list(combinations(ranked, 2))
        for chosen, rejected in contrasts if len(ranked) > 1 else []:
            pair = LabelledPair(chosen.score.sample.prompt, chosen, rejected)
            if pair.gap <= 0 or pair.gap < margin:
                ties += 1
            elif only_right and not chosen.is_right:
                wrong += 1
            else:
                pairs.append(pair)
    return Labels(
        tuple(pairs), tuple(best), len(groups), sum(len(group) < 2 for group in groups.values()), ties, wrong,
        len(candidates) - len(scored),
    )  # fmt: skip
