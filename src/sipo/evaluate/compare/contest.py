"""Several models by several scorers: the first against each of the others, and all of them in one table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sipo.errors import UserError
from sipo.evaluate.compare.pairs import Comparison, Key, compare_scores, keyed
from sipo.evaluate.compare.sides import Side
from sipo.evaluate.statistics.bootstrap import Estimate, bootstrap_mean
from sipo.evaluate.statistics.significance import holm

PAPER = {"HPS": ("hpsv2", "hpsv2.1"), "Aesthetic": ("aesthetic",), "ImageReward": ("imagereward",),
         "PickScore": ("pickscore",)}  # fmt: skip
"""The columns of the paper's Table 2, and which scorers may fill each; its Average is their plain mean."""


@dataclass(frozen=True)
class Row:
    """One model in the table: its mean by scorer, in the table's order, and the paper's average."""

    name: str
    means: tuple[Estimate, ...]
    average: float | None


@dataclass(frozen=True)
class Table:
    """Means over the pictures that all models have; `average` of a row is None unless all of `PAPER` is there.

    `titles` and `scorers` are the columns; `num_pictures` is how many of these pictures each scorer could score on all
    sides, and its means are over those.
    """

    titles: tuple[str, ...]
    scorers: tuple[str, ...]
    num_pictures: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def has_average(self) -> bool:
        return self.rows[0].average is not None


@dataclass(frozen=True)
class Contest:
    """`comparisons`: the first model against each other one, by each scorer, the other models slowest.

    `adjusted`: of each comparison, Holm's p-values of the mean and of the sign, over all comparisons.
    """

    comparisons: tuple[Comparison, ...]
    table: Table
    adjusted: tuple[tuple[float | None, float | None], ...]
    judges: tuple[Mapping[str, list], ...]  # of every side, first to last: settings of its scorers


def contest(
    sides: Sequence[Side],
    scorers: Sequence[str],
    category: str | None = None,
    tie_margin: float = 0.0,
    seed: int = 0,
) -> Contest:
    """Compare the first of `sides` with each of the others by each of `scorers`, on the pictures that all have.

    category, tie_margin: see `compare_scores`. Raises `UserError` where no prompt and seed has a score on all sides.
    """
    keys = {scorer: _common(sides, scorer) for scorer in scorers}
    first = sides[0]
    comparisons = tuple(
        compare_scores(
            (first.scores[scorer], other.scores[scorer]), (first.folder, other.folder), scorer,
            (first.name, other.name), category, tie_margin, seed, keys[scorer],
        )
        for other in sides[1:] for scorer in scorers
    )  # fmt: skip
    tested = [comparison.overall.significance for comparison in comparisons]
    adjusted = zip(holm([t and t.p_mean for t in tested]), holm([t and t.p_sign for t in tested]), strict=True)
    return Contest(comparisons, _table(sides, scorers, keys, seed), tuple(adjusted), tuple(s.judges for s in sides))


def alone(comparison: Comparison) -> Contest:
    """One comparison as a contest of two."""
    sides = [
        Side(name, folder, {comparison.scorer: [getattr(pair, side) for pair in comparison.pairs]})
        for name, folder, side in zip(comparison.names, comparison.folders, "ab", strict=True)
    ]
    keys = {comparison.scorer: {(pair.a.sample.prompt, pair.a.sample.seed) for pair in comparison.pairs}}
    tested = comparison.overall.significance
    adjusted = ((tested.p_mean, tested.p_sign),) if tested else ((None, None),)
    return Contest((comparison,), _table(sides, [comparison.scorer], keys, 0), adjusted, ({}, {}))


def _common(sides: Sequence[Side], scorer: str) -> set[Key]:
    """Prompts and seeds that have a score on every side, so that all comparisons are about the same pictures."""
    tables = [keyed(side.scores[scorer], side.folder) for side in sides]
    shared = set.intersection(*(set(table) for table in tables))
    scored = {key for key in shared if all(math.isfinite(table[key].value) for table in tables)}
    if not scored:
        counts = ", ".join(f"{side.name} {len(table)}" for side, table in zip(sides, tables, strict=True))
        raise UserError(
            f"Nothing to compare by {scorer!r}: {len(shared)} pictures agree in prompt and seed on all sides ({counts}), "
            "and none of them has a score on each."
        )
    return scored


def _table(sides: Sequence[Side], scorers: Sequence[str], keys: Mapping[str, set[Key]], seed: int) -> Table:
    columns = _columns(scorers)
    means: list[list[Estimate]] = [[] for _ in sides]
    counts = []
    for scorer in columns.values():
        tables = [keyed(side.scores[scorer], side.folder) for side in sides]
        scored = sorted(keys[scorer])
        counts.append(len(scored))
        for own, table in zip(means, tables, strict=True):
            own.append(bootstrap_mean([table[key].value for key in scored], [key[0] for key in scored], seed=seed))
    rows = tuple(
        Row(side.name, tuple(own), _average(columns, own)) for side, own in zip(sides, means, strict=True)
    )  # fmt: skip
    return Table(tuple(columns), tuple(columns.values()), tuple(counts), rows)


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
