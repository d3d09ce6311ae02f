"""Several models by several scorers: the first against each of the others, and the mean scores of all in one table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sipo.errors import UserError
from sipo.evaluate.compare.matches import Comparison, Key, Side, compare_scores
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

    table: None where nothing was scored, but people or judges of pairs gave verdicts. scorer_settings: of every side, first to last.
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
    judged: Sequence[Comparison] = (),
) -> Contest:
    """Compare the first of `sides` with each of the others by each of `scorers`, on the samples that all have.

    judged: comparisons of the same models by judges of pairs, which are listed and corrected with the others. category,
    tie_margin: see `compare_scores`. Raises `UserError` where no prompt and seed has a score on all sides, or a side has
    one twice.
    """
    keys = {scorer: _common(sides, scorer) for scorer in scorers}
    comparisons = tuple(
        compare_scores(sides[0], other, scorer, keys[scorer], category, tie_margin)
        for other in sides[1:]
        for scorer in scorers
    )
    table = _table(sides, scorers, keys) if scorers else None
    return Contest((*comparisons, *judged), table, tuple(side.scorer_settings for side in sides))


def _common(sides: Sequence[Side], scorer: str) -> set[Key]:
    """Prompts and seeds that have a score on every side, so that all comparisons are of the same samples."""
    tables = [side.by_key(scorer) for side in sides]
    shared = set.intersection(*(set(table) for table in tables))
    scored = {key for key in shared if all(math.isfinite(table[key].value) for table in tables)}
    if not scored:
        counts = ", ".join(f"{side.name} {len(table)}" for side, table in zip(sides, tables, strict=True))
        raise UserError(
            f"Nothing to compare by {scorer!r}: {len(shared)} samples agree in prompt and seed on all sides ({counts}), "
            "and none of them has a score on each."
        )
    return scored


def _table(sides: Sequence[Side], scorers: Sequence[str], keys: Mapping[str, set[Key]]) -> MeansTable:
    columns = _columns(scorers)
    rows = []
    for side in sides:
        means = tuple(_mean(side, scorer, keys[scorer]) for scorer in columns.values())
        rows.append(ModelMeans(side.name, means, _average(columns, means)))
    counts = tuple(len(keys[scorer]) for scorer in columns.values())
    return MeansTable(tuple(columns), tuple(columns.values()), counts, tuple(rows))


def _mean(side: Side, scorer: str, keys: set[Key]) -> Estimate:
    table, ordered = side.by_key(scorer), sorted(keys)
    return bootstrap_mean([table[key].value for key in ordered], [prompt for prompt, _ in ordered])


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
