"""A Swiss tournament of one prompt's samples, judged by one person, and the pairs that come out of it. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from sipo.annotate.strengths import bradley_terry
from sipo.evaluate.label.files import place, seeds_of, source_of
from sipo.files import digest

Pairs = Literal["judged", "best-worst", "all"]


@dataclass(frozen=True)
class Look:
    """One judgement: samples by number, as they stood from left to right; answer: "left", "right", "tie" or "bad"."""

    left: int
    right: int
    answer: str

    @property
    def points(self) -> float:
        """Of the left one."""
        return {"left": 1.0, "right": 0.0}.get(self.answer, 0.5)


def next_pair(count: int, looks: Sequence[Look], rounds: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """The next two of `count` samples to compare; None when the tournament is over.

    Swiss pairing: in each round everybody meets somebody of nearly the same score whom they have not met; who is left over
    sits the round out. `rounds` of log2(count) find the best, and a ranking of 8 in 12 looks. A pure function of the looks
    and of `rng`, which breaks ties of the score.
    """
    lots = rng.permutation(count)
    done = 0
    for _ in range(rounds):
        pairs = _round(count, looks[:done], lots)
        for pair in pairs:
            if done == len(looks):
                return pair
            done += 1
    return None


def _round(count: int, looks: Sequence[Look], lots: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of a round after `looks`, best first; fewer where everybody has met everybody."""
    score, met, seen = np.zeros(count), set(), np.zeros(count)
    for look in looks:
        score[look.left] += look.points
        score[look.right] += 1 - look.points
        seen[[look.left, look.right]] += 1
        met.add(frozenset((look.left, look.right)))
    waiting = sorted(range(count), key=lambda n: (seen[n] - score[n], seen[n], lots[n]))
    if count % 2:
        sits_out = max(waiting, key=lambda n: (seen[n], waiting.index(n)))
        waiting.remove(sits_out)
    return _matched(waiting, met) or []


def _matched(waiting: Sequence[int], met: set[frozenset[int]]) -> list[tuple[int, int]] | None:
    """Everybody with the nearest possible neighbour; steps back where that leaves somebody without a new partner."""
    if not waiting:
        return []
    first, *others = waiting
    for partner in others:
        if frozenset((first, partner)) not in met:
            rest = _matched([n for n in others if n != partner], met)
            if rest is not None:
                return [(first, partner), *rest]
    return None


def strengths_of(count: int, looks: Sequence[Look]) -> np.ndarray:
    """(count, count): the probability that the row beats the column, by Bradley-Terry on the looks."""
    wins = np.zeros((count, count))
    for look in looks:
        wins[look.left, look.right] += look.points
        wins[look.right, look.left] += 1 - look.points
    value = bradley_terry(wins, prior=1.0)
    return 1 / (1 + np.exp(value[None, :] - value[:, None]))


@dataclass(frozen=True)
class Prompt:
    """A prompt and its samples. source: the picture that all of them were made of, where the model reads one."""

    text: str
    files: tuple[Path, ...]
    source: Path | None = None

    @property
    def id(self) -> str:
        return digest([self.text, *map(str, self.files)])


def pairs_of(prompt: Prompt, looks: Sequence[Look], which: Pairs, folder: Path) -> list[dict]:
    """The lines of the manifest: chosen, rejected, strength = probability that the chosen one wins. A sample that was "bad"
    is never chosen; ties make no pair. which: the pairs that were judged, the best and the worst, or all of the ranking.
    """
    count = len(prompt.files)
    beats = strengths_of(count, looks)
    bad = {n for look in looks if look.answer == "bad" for n in (look.left, look.right)}
    seen = {n for look in looks for n in (look.left, look.right)}
    if which == "judged":
        wanted = [
            (look.left, look.right) if look.answer == "left" else (look.right, look.left)
            for look in looks
            if look.answer in ("left", "right")
        ]
    else:
        order = sorted(seen, key=lambda n: -beats[n].sum())
        wanted = list(combinations(order, 2)) if which == "all" else [(order[0], order[-1])]
        wanted = [(a, b) for a, b in wanted if beats[a, b] > 0.5 + 1e-9]
    lines = []
    for chosen, rejected in wanted:
        if chosen not in bad:
            names = (place(prompt.files[n], folder) for n in (chosen, rejected))
            line = dict(zip(("chosen", "rejected"), names, strict=True))
            line |= source_of(prompt.source, folder)
            line |= {"strength": round(max(float(beats[chosen, rejected]), 0.5), 4)}
            lines.append({"prompt": prompt.text, **line, **seeds_of(prompt.files[chosen], prompt.files[rejected])})
    return lines
