"""HPSv2's benchmark: a style's mean score, its deviation over ten groups of prompts, and both as `sipo score` prints them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sipo.evaluate.scores.files import Score
from sipo.samples.prompt_sets import HPS_STYLES

NUM_GROUPS = 10


@dataclass(frozen=True)
class GroupStatistics:
    """`mean` of all scores; `deviation`: the groups' means around it, in the scores' own unit."""

    mean: float
    deviation: float


def group_statistics(scores: Sequence[float]) -> GroupStatistics:
    """Statistics of one style's scores, in the order of its prompts (tgxs002/HPSv2: hpsv2/evaluation.py).

    Each group is a run of consecutive prompts (80 of 800); the deviation is that of the population (divided by the
    number of groups). HPSv2 prints both times 100; nothing is scaled here. Raises `ValueError` where the scores do not
    split into ten equal groups, or one is not finite.
    """
    if not scores or len(scores) % NUM_GROUPS:
        raise ValueError(f"{len(scores)} scores do not split into {NUM_GROUPS} equal groups.")
    if not all(math.isfinite(score) for score in scores):
        raise ValueError("A score is not finite: the benchmark's mean needs every picture.")
    size = len(scores) // NUM_GROUPS
    means = [math.fsum(scores[start : start + size]) / size for start in range(0, len(scores), size)]
    mean = math.fsum(means) / NUM_GROUPS
    deviation = math.sqrt(math.fsum((group - mean) ** 2 for group in means) / NUM_GROUPS)
    return GroupStatistics(mean, deviation)


def benchmark_statistics(by_style: Mapping[str, Sequence[float]]) -> tuple[dict[str, GroupStatistics], float]:
    """Each style's statistics, and the mean over styles. Raises `ValueError` without styles."""
    if not by_style:
        raise ValueError("No style to average over.")
    found = {style: group_statistics(scores) for style, scores in by_style.items()}
    return found, math.fsum(entry.mean for entry in found.values()) / len(found)


def scores_by_style(scores: Sequence[Score]) -> dict[str, list[float]]:
    """Scores by HPSv2's style, in the order of the prompts; empty where a picture has none of the four."""
    found: dict[str, list[float]] = {style: [] for style in HPS_STYLES}
    for score in scores:
        style = (score.sample.metadata or {}).get("style")
        if style not in found:
            return {}
        found[style].append(score.value)
    return {style: values for style, values in found.items() if values}


def print_styles(folder: Path, scorer: str, scores: Sequence[Score], console: Console) -> None:
    """Prints nothing for pictures of other prompts; where the groups cannot be made, the reason."""
    styles = scores_by_style(scores)
    if not styles:
        return
    try:
        found, mean = benchmark_statistics(styles)
    except ValueError as error:
        console.print(f"HPSv2's benchmark, {folder}, {scorer}: no figures. {error}", markup=False, soft_wrap=True)
        return
    table = Table(title=f"HPSv2's benchmark, {folder}, {scorer}", box=None, pad_edge=False, title_justify="left")
    for title in ("style", "pictures", "mean", f"deviation over {NUM_GROUPS} groups"):
        table.add_column(title, justify="left" if title == "style" else "right")
    for style, figures in found.items():
        table.add_row(style, f"{len(styles[style]):,}", f"{figures.mean:.4f}", f"{figures.deviation:.4f}")
    table.add_row("mean of styles", f"{len(scores):,}", f"{mean:.4f}", "")
    console.print(table)
