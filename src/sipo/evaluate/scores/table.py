"""Scores of several folders by several scorers, as a table: the mean with its interval, and what could not be read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sipo.errors import UsageError
from sipo.evaluate.pages.words import usage_text
from sipo.evaluate.scores.files import Score, scores_path, total_usage
from sipo.evaluate.scores.geneval2 import print_soft_tifa
from sipo.evaluate.scores.hps import print_styles
from sipo.evaluate.scores.score import score
from sipo.evaluate.scores.sources import MediaFolder
from sipo.evaluate.statistics.bootstrap import Estimate, bootstrap_mean
from sipo.processes import ALONE, Processes
from sipo.scorers.base import FileScorer, Scorer


@dataclass(frozen=True)
class Scored:
    """The scores of one folder by one scorer; `file` holds them."""

    folder: Path
    scorer: str
    scores: Sequence[Score]
    file: Path

    @property
    def failed(self) -> list[Score]:
        return [score for score in self.scores if score.error is not None]

    @property
    def mean(self) -> Estimate | None:
        """Over the samples that have a score, with a 95% interval over prompts; None where none has."""
        good = [score for score in self.scores if math.isfinite(score.value)]
        return bootstrap_mean([s.value for s in good], [s.sample.prompt for s in good]) if good else None


def score_folders(
    folders: Sequence[MediaFolder],
    scorers: Sequence[Scorer | FileScorer],
    batch_size: int,
    console: Console,
    out: Path | None = None,
    processes: Processes = ALONE,
) -> list[Scored]:
    """Every folder by every scorer, scorer by scorer, by all processes.

    out: the folder of the files of scores; default: each media folder itself. Raises UsageError for `out` and several
    folders.
    """
    if out and len(folders) > 1:
        names = ", ".join(str(folder.path) for folder in folders)
        raise UsageError(f"--out takes the scores of one folder, and there are {len(folders)}: {names}")
    results = []
    for scorer in scorers:
        for folder in folders:
            found = score(folder.path, scorer, batch_size, console, folder.samples, out, processes)
            results.append(Scored(folder.path, scorer.name, found, scores_path(out or folder.path, scorer.name)))
    return results


def print_scores(results: Sequence[Scored], console: Console, named: int = 20) -> None:
    """Print the means, HPSv2's and GenEval 2's figures for their prompts, what endpoints were asked, the files, and why media (the first
    `named`) have no score."""
    table = Table(box=None, pad_edge=False)
    for title in ("folder", "scorer", "scored", "mean", "95% interval", "unreadable"):
        is_number = title in ("scored", "mean", "unreadable")
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    for result in results:
        mean, failed = result.mean, len(result.failed)
        value = "–" if mean is None else f"{mean.value:.4f}"
        bounds = "–" if mean is None or mean.low is None else f"{mean.low:.4f} to {mean.high:.4f}"
        count = f"{len(result.scores) - failed:,}"
        table.add_row(str(result.folder), result.scorer, count, value, bounds, f"{failed:,}" if failed else "")
    console.print(table)
    for result in results:
        print_styles(result.folder, result.scorer, result.scores, console)
        print_soft_tifa(result.folder, result.scorer, result.scores, console)
    for result in results:
        if usages := [
            score.details["usage"] for score in result.scores if "requests" in score.details.get("usage", ())
        ]:
            text = usage_text(total_usage(usages))
            console.print(f"asked: {result.scorer}: {text}", highlight=False, markup=False, soft_wrap=True)
    for result in results:
        console.print(f"scores: {result.file}", highlight=False, markup=False, soft_wrap=True)
    lost = {str(r.folder / s.sample.file): str(s.error) for r in results for s in r.failed}
    for file, error in list(lost.items())[:named]:
        console.print(f"not scored: {file}: {error}", highlight=False, markup=False, soft_wrap=True)
    if len(lost) > named:
        console.print(f"not scored: {len(lost) - named:,} more; the files of scores hold the reasons")
