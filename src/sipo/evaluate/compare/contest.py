"""Several models by several scorers: the first against each of the others, and the mean scores of all in one table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sipo.errors import UserError
from sipo.evaluate.compare.matches import Comparison, Key, compare_scores, scores_by_key
from sipo.evaluate.scores.files import Score
from sipo.evaluate.statistics.bootstrap import Estimate, bootstrap_mean
from sipo.evaluate.statistics.significance import holm

PAPER = {
    "HPS": ("hpsv2", "hpsv2.1"),
    "Aesthetic": ("aesthetic",),
    "ImageReward": ("imagereward",),
    "PickScore": ("pickscore",),
}
"""The columns of the paper's Table 2, and the scorers that may fill each; its Average is their plain mean."""


@dataclass(frozen=True)
class Side:
    """One model: `scores` by scorer, in the order of the media; `folder` is where the media files are.

    scorer_settings: by scorer, the settings recorded with the scores (several if a folder was scored in parts).
    """

    name: str
    folder: Path
    scores: Mapping[str, Sequence[Score]]
    scorer_settings: Mapping[str, list] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMeans:
    """One model's means by scorer, in the table's order, and the paper's average."""

    name: str
    means: tuple[Estimate, ...]
    average: float | None


@dataclass(frozen=True)
class MeansTable:
    """Means over the samples that all models have; a row's `average` is None unless all columns of `PAPER` exist.

    `titles` and `scorers` are the columns; `num_pictures` counts the samples that each scorer scored on all sides,
    and its means are over those.
    """

    titles: tuple[str, ...]
    scorers: tuple[str, ...]
    num_pictures: tuple[int, ...]
    rows: tuple[ModelMeans, ...]


@dataclass(frozen=True)
class Contest:
    """`comparisons`: the first model against each other one, by each scorer; all scorers of one model, then the next.

    table: None where people voted and nothing was scored. scorer_settings: of every side, first to last.
    """

    comparisons: tuple[Comparison, ...]
    table: MeansTable | None = None
    scorer_settings: tuple[Mapping[str, list], ...] = ()

    def adjusted(self) -> list[tuple[float | None, float | None]]:
        """Of each comparison, the p-values of the mean and of the sign, each corrected over all comparisons (Holm)."""
        tests = [comparison.overall.significance for comparison in self.comparisons]
        by_mean, by_sign = holm([t and t.p_mean for t in tests]), holm([t and t.p_sign for t in tests])
        return list(zip(by_mean, by_sign, strict=True))


def contest(
    sides: Sequence[Side],
    scorers: Sequence[str],
    category: str | None = None,
    tie_margin: float = 0.0,
    seed: int = 0,
) -> Contest:
    """Compare the first of `sides` with each of the others by each of `scorers`, on the samples that all have.

    category, tie_margin: see `compare_scores`. Raises `UserError` where no prompt and seed has a score on all sides.
    """
    keys = {scorer: _common(sides, scorer) for scorer in scorers}
    first = sides[0]
    comparisons = tuple(
        compare_scores(
            (first.scores[scorer], other.scores[scorer]),
            (first.folder, other.folder),
            scorer,
            (first.name, other.name),
            category,
            tie_margin,
            seed,
            keys[scorer],
        )
        for other in sides[1:]
        for scorer in scorers
    )
    return Contest(comparisons, _table(sides, scorers, keys, seed), tuple(side.scorer_settings for side in sides))


def _common(sides: Sequence[Side], scorer: str) -> set[Key]:
    """Prompts and seeds that have a score on every side, so that all comparisons are of the same samples."""
    tables = [scores_by_key(side.scores[scorer], side.folder) for side in sides]
    shared = set.intersection(*(set(table) for table in tables))
    scored = {key for key in shared if all(math.isfinite(table[key].value) for table in tables)}
    if not scored:
        counts = ", ".join(f"{side.name} {len(table)}" for side, table in zip(sides, tables, strict=True))
        raise UserError(
            f"Nothing to compare by {scorer!r}: {len(shared)} samples agree in prompt and seed on all sides ({counts}), "
            "and none of them has a score on each."
        )
    return scored


def _table(sides: Sequence[Side], scorers: Sequence[str], keys: Mapping[str, set[Key]], seed: int) -> MeansTable:
    columns = _columns(scorers)
    means: list[list[Estimate]] = [[] for _ in sides]
    for scorer in columns.values():
        scored = sorted(keys[scorer])
        for own, side in zip(means, sides, strict=True):
            table = scores_by_key(side.scores[scorer], side.folder)
            own.append(bootstrap_mean([table[key].value for key in scored], [key[0] for key in scored], seed=seed))
    return MeansTable(
        tuple(columns),
        tuple(columns.values()),
        tuple(len(keys[scorer]) for scorer in columns.values()),
        tuple(
            ModelMeans(side.name, tuple(own), _average(columns, own)) for side, own in zip(sides, means, strict=True)
        ),
    )


def _average(titles: Iterable[str], means: Sequence[Estimate]) -> float | None:
    of_paper = [mean.value for title, mean in zip(titles, means, strict=True) if title in PAPER]
    return math.fsum(of_paper) / len(PAPER) if len(of_paper) == len(PAPER) else None


def _columns(scorers: Sequence[str]) -> dict[str, str]:
    """Title -> scorer: the paper's columns first and under its names, then the others."""
    columns = {}
    for title, candidates in PAPER.items():
        for scorer in [s for s in scorers if s in candidates][:1]:
            columns[title] = scorer
    return columns | {scorer: scorer for scorer in scorers if scorer not in columns.values()}
