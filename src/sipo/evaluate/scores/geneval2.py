"""GenEval 2: Soft-TIFA over all pictures, by skill and by number of atoms, as `sipo score` prints it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sipo.evaluate.scores.files import Score
from sipo.scorers.judge.questions import SKILLS


@dataclass(frozen=True)
class SoftTifa:
    """Means in percent, and over how many pictures or questions each is taken (soft_tifa_analysis.py).

    arithmetic, geometric, hard: over pictures. by_skill: over all questions of a skill, wherever they stand. by_atoms: the
    geometric mean over the pictures of prompts with so many atoms.
    """

    arithmetic: float
    geometric: float
    hard: float
    pictures: int
    questions: int
    unlisted: int  # questions, no spelling of whose answer was listed
    by_skill: Mapping[str, tuple[float, int]]
    by_atoms: Mapping[int, tuple[float, int]]


def soft_tifa(scores: Sequence[Score]) -> SoftTifa | None:
    """None where no picture was scored so."""
    found = [each for each in scores if each.error is None and "atoms" in each.details and each.sample.metadata]
    if not found:
        return None
    by_skill, by_atoms = defaultdict(list), defaultdict(list)
    for each in found:
        about: Mapping = each.sample.metadata or {}
        by_atoms[about["atom_count"]].append(each.value)
        for skill, probability in zip(about["skills"], each.details["atoms"], strict=True):
            by_skill[skill].append(probability)
    return SoftTifa(
        arithmetic=_percent(each.details["arithmetic"] for each in found)[0],
        geometric=_percent(each.value for each in found)[0],
        hard=_percent(each.details["tifa"] for each in found)[0],
        pictures=len(found),
        questions=sum(map(len, by_skill.values())),
        unlisted=sum(each.details["unlisted"] for each in found),
        by_skill={skill: _percent(by_skill[skill]) for skill in SKILLS if skill in by_skill},
        by_atoms={atoms: _percent(by_atoms[atoms]) for atoms in sorted(by_atoms)},
    )


def _percent(values: Iterable[float]) -> tuple[float, int]:
    """A mean in percent, and of how many."""
    known = list(values)
    return 100 * math.fsum(known) / len(known), len(known)


def print_soft_tifa(folder: Path, scorer: str, scores: Sequence[Score], console: Console) -> None:
    """Prints nothing for scores of another kind."""
    found = soft_tifa(scores)
    if found is None:
        return
    table = Table(title=f"GenEval 2, {folder}, {scorer}", box=None, pad_edge=False, title_justify="left")
    for title in ("Soft-TIFA", "mean", "over", "%"):
        table.add_column(title, justify="left" if title in ("Soft-TIFA", "mean") else "right")
    pictures = f"{found.pictures:,} pictures"
    table.add_row("all", "arithmetic", pictures, f"{found.arithmetic:.2f}")
    table.add_row("all", "geometric", pictures, f"{found.geometric:.2f}")
    for skill, (value, count) in found.by_skill.items():
        table.add_row(skill, "arithmetic", f"{count:,} questions", f"{value:.2f}")
    for atoms, (value, count) in found.by_atoms.items():
        table.add_row(f"{atoms} atoms", "geometric", f"{count:,} pictures", f"{value:.2f}")
    table.add_row("TIFA (hard)", "arithmetic", pictures, f"{found.hard:.2f}")
    console.print(table)
    if found.unlisted:
        console.print(
            f"GenEval 2: {found.unlisted:,} of {found.questions:,} questions count as 0, because no spelling of the answer was among "
            "the tokens that the endpoint lists (options.top_logprobs)",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
