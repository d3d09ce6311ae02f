"""Preferences among samples of the same prompts, by scores or by votes -> preference pairs, and the best samples."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar

from sipo.evaluate.scores.files import Score
from sipo.evaluate.statistics.verdicts import Verdict
from sipo.flags import read_flag

Mode = Literal["best-worst", "all"]
T = TypeVar("T")


@dataclass(frozen=True)
class Candidate:
    """One sample: its file, its score (None where people vote), and what made it (a name, for the pair's record)."""

    path: Path
    score: Score | None = None
    model: str = ""

    @property
    def source(self) -> Path | None:
        """The picture that the sample was made of, where its folder records one."""
        return Path(self.score.sample.source) if self.score and self.score.sample.source else None

    @property
    def is_right(self) -> bool:
        """Whether the scorer found the sample correct; True where it gives no such answer."""
        return self.score is None or bool(read_flag(self.score.details.get("correct", True)))


@dataclass(frozen=True)
class LabelledPair:
    """`chosen` is preferred to `rejected`; `gap` is the difference of their scores, None for a vote."""

    prompt: str
    chosen: Candidate
    rejected: Candidate
    gap: float | None = None


@dataclass(frozen=True)
class Preferences:
    """Pairs, and how many verdicts made none: `num_ties`, and `num_wrong` whose better sample is not correct."""

    pairs: tuple[LabelledPair, ...]
    num_ties: int
    num_wrong: int


@dataclass(frozen=True)
class Labels:
    """Pairs from scores, and `best`: the best sample of every prompt that has one, for supervised training.

    num_alone: prompts with fewer than two scored samples; num_unscored: samples without a score.
    """

    preferences: Preferences
    best: tuple[Candidate, ...]
    num_prompts: int
    num_alone: int
    num_unscored: int


def label(
    candidates: Sequence[Candidate], mode: Mode = "best-worst", margin: float = 0.0, only_right: bool = False
) -> Labels:
    """Pairs of scored samples of one prompt (with the same metadata and source), in the order in which the prompts first occur.

    mode: "best-worst" pairs the highest score with the lowest, one pair a prompt; "all" pairs every two. A gap of 0 or
    below `margin` is a tie and dropped. `only_right`: the chosen sample, and a prompt's best, must be correct by the
    scorer (`correct` among the score's details). Of equal scores the first sample counts as the better one.
    """
    if margin < 0:
        raise ValueError(f"a margin of {margin} is negative")
    scored = [(each, each.score) for each in candidates if each.score and math.isfinite(each.score.value)]
    groups: dict[str, list[tuple[Candidate, Score]]] = {}
    for candidate, score in scored:
        sample = score.sample
        key = json.dumps([sample.prompt, sample.metadata, sample.source], sort_keys=True)
        groups.setdefault(key, []).append((candidate, score))
    ranked = [sorted(group, key=lambda entry: -entry[1].value) for group in groups.values()]
    contrasts = [
        (better, worse, _verdict(high, low, margin))
        for group in ranked
        for (better, high), (worse, low) in _contrasts(group, mode)
    ]
    best = [group[0][0] for group in ranked]
    return Labels(
        preferences(contrasts, only_right),
        tuple(candidate for candidate in best if candidate.is_right or not only_right),
        num_prompts=len(groups),
        num_alone=sum(len(group) < 2 for group in ranked),
        num_unscored=len(candidates) - len(scored),
    )


def preferences(contrasts: Iterable[tuple[Candidate, Candidate, Verdict]], only_right: bool = False) -> Preferences:
    """Pairs from verdicts on the first candidate against the second, by scores or by votes; ties make none."""
    pairs, ties, wrong = [], 0, 0
    for first, second, verdict in contrasts:
        chosen, rejected = (first, second) if verdict.result == "win" else (second, first)
        if verdict.result == "tie":
            ties += 1
        elif only_right and not chosen.is_right:
            wrong += 1
        else:
            gap = None if verdict.difference is None else abs(verdict.difference)
            pairs.append(LabelledPair(verdict.prompt, chosen, rejected, gap))
    return Preferences(tuple(pairs), ties, wrong)


def _contrasts(ranked: Sequence[T], mode: Mode) -> list[tuple[T, T]]:
    if len(ranked) < 2:
        return []
    return [(ranked[0], ranked[-1])] if mode == "best-worst" else list(combinations(ranked, 2))


def _verdict(high: Score, low: Score, margin: float) -> Verdict:
    gap = high.value - low.value
    return Verdict(high.sample.prompt, high.sample.seed, "tie" if gap <= 0 or gap < margin else "win", gap)
