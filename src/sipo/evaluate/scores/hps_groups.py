"""HPSv2's benchmark figures: a style's mean, and its deviation over ten groups of 80 prompts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NUM_GROUPS = 10


@dataclass(frozen=True)
class GroupStatistics:
    """`mean` of all scores; `deviation`: the groups' means around it, in the scores' own unit."""

    mean: float
    deviation: float
    group_means: tuple[float, ...]


def group_statistics(scores: Sequence[float], num_groups: int = NUM_GROUPS) -> GroupStatistics:
    """Statistics of one style's scores, in the order of its prompts (tgxs002/HPSv2: hpsv2/evaluation.py).

    Each group is a run of consecutive prompts (80 of 800); the deviation is that of the population (divided by the
    number of groups). HPSv2 prints a hundredfold; nothing is scaled here. Raises `ValueError` where the scores do not
    split into `num_groups` equal groups, or one is not finite.
    """
    if num_groups < 1 or not scores or len(scores) % num_groups:
        raise ValueError(f"{len(scores)} scores do not split into {num_groups} equal groups.")
    if not all(math.isfinite(score) for score in scores):
        raise ValueError("A score is not finite: the benchmark's mean needs every picture.")
    size = len(scores) // num_groups
    means = tuple(math.fsum(scores[start : start + size]) / size for start in range(0, len(scores), size))
    mean = math.fsum(means) / num_groups
    deviation = math.sqrt(math.fsum((group - mean) ** 2 for group in means) / num_groups)
    return GroupStatistics(mean, deviation, means)


def benchmark_statistics(by_style: Mapping[str, Sequence[float]]) -> tuple[dict[str, GroupStatistics], float]:
    """Each style's statistics, and the mean over styles. Raises `ValueError` without styles."""
    if not by_style:
        raise ValueError("No style to average over.")
    found = {style: group_statistics(scores) for style, scores in by_style.items()}
    return found, math.fsum(entry.mean for entry in found.values()) / len(found)
