"""Two sides compared: their samples matched by prompt and seed, who wins, by how much, and in which categories."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from sipo.errors import UserError
from sipo.evaluate.scores.files import Score
from sipo.evaluate.statistics.significance import Significance, significance
from sipo.evaluate.statistics.verdicts import Tally, Verdict, result_of, tally
from sipo.samples.folder import Sample

T = TypeVar("T")
Key = tuple[str, int]  # prompt, seed
Details = dict[str, tuple[float, float]]
CATEGORIES = ("tag", "style", "category")
"""Metadata keys by which benchmarks sort their prompts: GenEval's and the miniature's, HPSv2's, DrawBench's and Parti's."""


@dataclass(frozen=True)
class Side:
    """One model: `scores` by scorer, in the order of the media; `folder` is where the media files are.

    scorer_settings: by scorer, the settings recorded with the scores (several if a folder was scored in parts).
    """

    name: str
    folder: Path
    scores: Mapping[str, Sequence[Score]]
    scorer_settings: Mapping[str, list] = field(default_factory=dict)

    def by_key(self, scorer: str) -> dict[Key, Score]:
        """The scores by prompt and seed. Raises `UserError`, naming the files, if a prompt and seed occur twice."""
        return by_key(self.folder, ((score.sample, score) for score in self.scores[scorer]))


@dataclass(frozen=True)
class Match:
    """Two samples of one prompt and seed, and the verdict on the first. `scores` are what decided it; None for a vote.

    details: of a vote, what is known of each sample.
    """

    verdict: Verdict
    samples: tuple[Sample, Sample]
    scores: tuple[Score, Score] | None = None
    details: tuple[dict, dict] = ({}, {})


@dataclass(frozen=True)
class Outcome:
    """A set of matches in figures.

    means: of the scores of each side; None for votes. details: means of every number or truth value that the scorer
    adds, of each side. significance: of the whole comparison; None for a category.
    """

    tally: Tally
    means: tuple[float, float] | None
    details: Details
    significance: Significance | None = None


@dataclass(frozen=True)
class Comparison:
    """One side against another by one scorer, a judge of pairs, or people.

    judged: of such a judge, how it agrees with itself in both orders, and its usage (see `sipo.evaluate.compare.judged`).
    """

    scorer: str
    names: tuple[str, str]
    folders: tuple[Path, Path]
    matches: tuple[Match, ...]
    overall: Outcome
    categories: dict[str, Outcome]
    tie_margin: float = 0.0
    unpaired: tuple[int, int] = (0, 0)  # samples without a counterpart, of each side
    unscored: tuple[Score, ...] = ()  # samples whose match was dropped; their `error` is the reason
    num_left_out: int = 0  # scored matches outside the `keys` to compare
    judged: Mapping | None = None


def compare_matches(
    matches: Sequence[Match], scorer: str, names: tuple[str, str], folders: tuple[Path, Path], tie_margin: float = 0.0
) -> Comparison:
    """The comparison of two sides from its matches, whether scores or votes decided them.

    scorer: the scorer's name, or a name for the people. Raises `ValueError` without matches.
    """
    tags = sorted({tag for match in matches if (tag := match.verdict.category) is not None})
    return Comparison(
        scorer,
        names,
        folders,
        tuple(matches),
        overall=_outcome(matches, significance([match.verdict for match in matches], tie_margin)),
        categories={tag: _outcome([m for m in matches if m.verdict.category == tag]) for tag in tags},
        tie_margin=tie_margin,
    )


def compare_scores(
    a: Side, b: Side, scorer: str, keys: Collection[Key], category: str | None = None, tie_margin: float = 0.0
) -> Comparison:
    """Compare two sides' scores by `scorer` on the samples of `keys`, all of which have a score on both sides.

    Scores within `tie_margin` of each other tie. `category` is the metadata key of the breakdown; None: the first of
    `CATEGORIES` that occurs. Samples without a counterpart or without a score are counted. Raises `UserError` where no
    prompt has the `category`.
    """
    ours, theirs = a.by_key(scorer), b.by_key(scorer)
    shared = [(ours[key], theirs[key]) for key in sorted(ours.keys() & theirs.keys())]
    unscored = tuple(score for pair in shared for score in pair if not math.isfinite(score.value))
    num_scored = sum(all(math.isfinite(score.value) for score in pair) for pair in shared)
    category = category_key([ours[key].sample for key in sorted(keys)], category)
    matches = [_match(ours[key], theirs[key], category, tie_margin) for key in sorted(keys)]
    return replace(
        compare_matches(matches, scorer, (a.name, b.name), (a.folder, b.folder), tie_margin),
        unpaired=(len(ours) - len(shared), len(theirs) - len(shared)),
        unscored=unscored,
        num_left_out=num_scored - len(matches),
    )


def category_key(samples: Sequence[Sample], wanted: str | None) -> str:
    """The metadata key of the breakdown. Raises `UserError` where no sample has the one that is `wanted`."""
    known = list(dict.fromkeys(key for sample in samples for key in sample.metadata or {}))
    if wanted is not None and wanted not in known:
        raise UserError(f"No prompt has the metadata key {wanted!r}; the prompts have {', '.join(known) or 'none'}.")
    return wanted or next((key for key in CATEGORIES if key in known), CATEGORIES[0])


def category_of(sample: Sample, key: str) -> str | None:
    """The sample's category in the breakdown by that metadata key."""
    tag = (sample.metadata or {}).get(key)
    return None if tag is None else str(tag)


def by_key(folder: Path, found: Iterable[tuple[Sample, T]]) -> dict[Key, T]:
    """Values by the prompt and seed of their samples. Raises `UserError`, naming the files, if these occur twice."""
    files: dict[Key, str] = {}
    table: dict[Key, T] = {}
    for sample, value in found:
        key = sample.prompt, sample.seed
        if key in files:
            raise UserError(
                f"{folder} holds two samples of seed {key[1]} for {key[0]!r}: {files[key]} and {sample.file}. Samples are "
                "matched by prompt and seed, so each may occur once."
            )
        files[key], table[key] = sample.file, value
    return table


def _match(a: Score, b: Score, category: str, tie_margin: float) -> Match:
    sample, difference = a.sample, a.value - b.value
    verdict = Verdict(
        sample.prompt, sample.seed, result_of(difference, tie_margin), difference, category_of(sample, category)
    )
    return Match(verdict, (a.sample, b.sample), (a, b))


def _outcome(matches: Sequence[Match], tests: Significance | None = None) -> Outcome:
    counted = tally([match.verdict for match in matches])
    scores = [match.scores for match in matches if match.scores is not None]
    if len(scores) < len(matches):
        return Outcome(counted, None, {}, tests)
    means = _mean([a.value for a, _ in scores]), _mean([b.value for _, b in scores])
    return Outcome(counted, means, _mean_details(scores), tests)


def _mean_details(scores: Sequence[tuple[Score, Score]]) -> Details:
    """Means of the details that are numbers (or truth values) on both sides of every match."""
    first, second = ([score.details for score in side] for side in zip(*scores, strict=True))
    numbers = [key for key in first[0] if all(isinstance(d.get(key), (int, float)) for d in (*first, *second))]
    return {key: (_mean([d[key] for d in first]), _mean([d[key] for d in second])) for key in numbers}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
