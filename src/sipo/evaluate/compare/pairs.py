"""Two sets of scored pictures held against each other: paired by prompt and seed, who wins and by how much."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sipo.errors import UserError
from sipo.evaluate.scores.score import Score, read_scores
from sipo.evaluate.statistics.bootstrap import Estimate, bootstrap_mean
from sipo.evaluate.statistics.significance import Significance, significance

Key = tuple[str, int]  # prompt, seed
CATEGORIES = ("tag", "style", "category")
"""Metadata keys that benchmarks sort their prompts by: GenEval's and the miniature's, HPSv2's, DrawBench's and Parti's."""


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt from one seed."""

    a: Score
    b: Score

    @property
    def difference(self) -> float:
        return self.a.value - self.b.value

    def tag(self, category: str) -> str | None:
        """The pair's value of the metadata key `category`, as text."""
        value = (self.a.sample.metadata or {}).get(category)
        return None if value is None else str(value)


@dataclass(frozen=True)
class Outcome:
    """What a set of pairs says. Win rate: the share that `a` wins, a tie counted half. Intervals are over prompts.

    `significance` is tested of the whole alone; its categories say None.
    """

    num_pairs: int
    num_prompts: int
    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    mean_a: float
    mean_b: float
    difference: Estimate  # mean of score a - score b
    details: dict[str, tuple[float, float]]  # mean of every number or truth value the scorer adds, of a and b
    significance: Significance | None = None


@dataclass(frozen=True)
class Comparison:
    """The whole of a comparison; `categories` splits it by a metadata key."""

    scorer: str
    names: tuple[str, str]
    folders: tuple[Path, Path]
    overall: Outcome
    categories: dict[str, Outcome]
    pairs: tuple[Pair, ...]
    unpaired: tuple[int, int]  # pictures without a partner, of a and b
    unscored: tuple[Score, ...]  # pictures whose pair was dropped; their `error` says why
    num_left_out: int  # scored pairs that are not among the `keys` to look at
    tie_margin: float
    category: str


def compare(
    a: Path,
    b: Path,
    scorer: str,
    names: tuple[str, str] = ("policy", "base"),
    category: str | None = None,
    tie_margin: float = 0.0,
    seed: int = 0,
) -> Comparison:
    """Two media folders by their scores by `scorer`; see `compare_scores`. `UserError` where one is not scored."""
    a, b = Path(a), Path(b)
    scores = read_scores(a, scorer), read_scores(b, scorer)
    return compare_scores(scores, (a, b), scorer, names, category, tie_margin, seed)


def compare_scores(
    scores: tuple[Sequence[Score], Sequence[Score]],
    folders: tuple[Path, Path],
    scorer: str,
    names: tuple[str, str],
    category: str | None = None,
    tie_margin: float = 0.0,
    seed: int = 0,
    keys: Collection[Key] | None = None,
) -> Comparison:
    """Pair the pictures of two sides by (prompt, seed) and compare their scores by `scorer`.

    Scores within `tie_margin` of each other tie. `category` is the metadata key of the breakdown; None: the first of
    `CATEGORIES` that occurs. `keys` are the pairs to look at; None: all. Pictures without a partner or without a score
    are left out and counted. Raises `UserError` where a side has one prompt and seed twice, no pair is left, or the
    `category` is asked for and no pair has it.
    """
    by_key = [keyed(side, folder) for side, folder in zip(scores, folders, strict=True)]
    shared = sorted(by_key[0].keys() & by_key[1].keys())
    pairs = {key: Pair(by_key[0][key], by_key[1][key]) for key in shared}
    finite = {key: pair for key, pair in pairs.items() if math.isfinite(pair.difference)}
    scored = [pair for key, pair in finite.items() if keys is None or key in keys]
    if not scored:
        raise UserError(
            f"Nothing to compare: {folders[0]} holds {len(by_key[0])} pictures, {folders[1]} holds {len(by_key[1])}, "
            f"{len(shared)} agree in prompt and seed, and none of these pairs has a score by {scorer!r} on both sides."
        )
    known = list(dict.fromkeys(key for pair in scored for key in pair.a.sample.metadata or {}))
    if category is not None and category not in known:
        raise UserError(f"No prompt has the metadata key {category!r}; there are {', '.join(known) or 'none'}.")
    category = category or next((key for key in CATEGORIES if key in known), CATEGORIES[0])
    tags = sorted({tag for pair in scored if (tag := pair.tag(category)) is not None})
    overall = _outcome(scored, tie_margin, seed)
    differences, prompts = [pair.difference for pair in scored], [pair.a.sample.prompt for pair in scored]
    return Comparison(
        scorer, names, folders,
        overall=replace(overall, significance=significance(differences, prompts, tie_margin, seed)),
        categories={tag: _outcome([p for p in scored if p.tag(category) == tag], tie_margin, seed) for tag in tags},
        pairs=tuple(scored),
        unpaired=(len(by_key[0]) - len(pairs), len(by_key[1]) - len(pairs)),
        unscored=tuple(s for pair in pairs.values() for s in (pair.a, pair.b) if not math.isfinite(s.value)),
        num_left_out=len(finite) - len(scored),
        tie_margin=tie_margin,
        category=category,
    )  # fmt: skip


def verdict(difference: float, tie_margin: float = 0.0) -> str:
    """ "win", "tie" or "loss" of the first against the second."""
    return "tie" if abs(difference) <= tie_margin else "win" if difference > 0 else "loss"


def keyed(scores: Sequence[Score], where: Path) -> dict[Key, Score]:
    """The scores by prompt and seed. Raises `UserError`, which names the files and `where`, for one that comes twice."""
    found: dict[Key, Score] = {}
    for score in scores:
        key = score.sample.prompt, score.sample.seed
        if key in found:
            raise UserError(
                f"{where} holds two pictures of seed {key[1]} for {key[0]!r}: {found[key].sample.file} and "
                f"{score.sample.file}. Pictures are paired by prompt and seed, so each may occur once."
            )
        found[key] = score
    return found


def _outcome(pairs: Sequence[Pair], tie_margin: float, seed: int) -> Outcome:
    verdicts = [verdict(pair.difference, tie_margin) for pair in pairs]
    points = [{"win": 1.0, "tie": 0.5, "loss": 0.0}[v] for v in verdicts]
    prompts = [pair.a.sample.prompt for pair in pairs]
    count = Counter(verdicts)
    return Outcome(
        len(pairs), len(set(prompts)), count["win"], count["tie"], count["loss"],
        win_rate=bootstrap_mean(points, prompts, seed=seed),
        mean_a=_mean([pair.a.value for pair in pairs]),
        mean_b=_mean([pair.b.value for pair in pairs]),
        difference=bootstrap_mean([pair.difference for pair in pairs], prompts, seed=seed),
        details=_mean_details(pairs),
    )  # fmt: skip


def _mean_details(pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    """Means of the details that are numbers (or truth values) on both sides of every pair."""
    keys = [key for key, value in pairs[0].a.details.items() if isinstance(value, (int, float))]
    sides = [[pair.a.details for pair in pairs], [pair.b.details for pair in pairs]]
    numbers = [key for key in keys if all(isinstance(d.get(key), (int, float)) for side in sides for d in side)]
    return {key: (_mean([d[key] for d in sides[0]]), _mean([d[key] for d in sides[1]])) for key in numbers}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
