"""Patterns of annotators who do not look: flagged with the evidence, for a researcher to decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

SURE = 1e-4  # of 100 careful annotators, one in a hundred such flags would be by chance
FEW = 12  # votes below which no pattern is judged


@dataclass(frozen=True)
class Record:
    """What is known of one annotator, votes in the order in which they were given.

    left: for each decided vote, whether the left result was chosen. seconds: the time for each vote, None where unknown.
    repeats: for each item that was shown twice, whether both answers agree. checks: for each check item, whether the
    answer was right. others: for each vote with a majority of the other annotators, whether it agrees with it.
    """

    num_due: int
    num_answered: int
    left: Sequence[bool] = ()
    seconds: Sequence[float | None] = ()
    repeats: Sequence[bool] = ()
    checks: Sequence[bool] = ()
    others: Sequence[bool] = ()


@dataclass(frozen=True)
class Flag:
    """kind: one of "side", "fast", "repeats", "checks", "unanswered", "guesses"; evidence: a sentence with the numbers."""

    kind: str
    evidence: str


def flags(record: Record, look: float = 1.0, closed: bool = False, usual: float = 0.75) -> list[Flag]:
    """The careless patterns of one annotator.

    look: seconds within which nobody can judge an item. closed: whether answers that are missing now stay missing.
    usual: the share of the others' majorities with which a usual annotator agrees.
    """
    found = []
    if closed and record.num_answered < 0.9 * record.num_due:
        text = f"{record.num_answered} of {record.num_due} items answered"
        found.append(Flag("unanswered", text))
    if side := _one_sided(record.left):
        found.append(side)
    times = np.array([seconds for seconds in record.seconds if seconds is not None])
    if len(times) >= FEW and (fast := int((times < look).sum())) > 0.2 * len(times):
        text = f"{fast} of {len(times)} answers in under {look:g} s; the median is {np.median(times):.1f} s"
        found.append(Flag("fast", text))
    agreeing = sum(record.repeats)
    if len(record.repeats) >= 5 and binom.cdf(agreeing, len(record.repeats), 0.8) < 0.02:
        found.append(Flag("repeats", f"{agreeing} of {len(record.repeats)} repeated items answered alike"))
    right = sum(record.checks)
    if len(record.checks) >= 3 and binom.cdf(right, len(record.checks), 0.95) < 0.005:
        found.append(Flag("checks", f"{right} of {len(record.checks)} check items answered right"))
    if guesses := _guesses(record, usual):
        found.append(guesses)
    return found


def _guesses(record: Record, usual: float) -> Flag | None:
    """A hundred times likelier for somebody who guesses (1/2 everywhere) than for a usual annotator, over all evidence."""
    evidence = {
        "agrees with the others' majority on": (record.others, usual), "answers repeats alike in": (record.repeats, 0.8),
        "answers checks right in": (record.checks, 0.95),
    }  # fmt: skip
    ratio = sum(np.log(0.5 / (rate if right else 1 - rate)) for rights, rate in evidence.values() for right in rights)
    if len(record.others) < 2 * FEW or ratio < np.log(100):
        return None
    seen = [f"{what} {sum(rights)} of {len(rights)}" for what, (rights, _) in evidence.items() if rights]
    return Flag("guesses", ", ".join(seen))


def all_flags(records: Mapping[str, Record], look: float = 1.0, closed: bool = False) -> dict[str, list[Flag]]:
    """The flags of everybody; usual is what the median annotator reaches."""
    rates = [np.mean(record.others) for record in records.values() if len(record.others) >= FEW]
    usual = float(np.clip(np.median(rates), 0.55, 0.95)) if rates else 0.75
    return {name: flags(record, look, closed, usual) for name, record in records.items()}


def _one_sided(left: Sequence[bool]) -> Flag | None:
    """One side in at least 85% of the decided votes, and by more than chance explains."""
    count, total = sum(left), len(left)
    most = max(count, total - count)
    if total < FEW or most < 0.85 * total or 2 * binom.sf(most - 1, total, 0.5) > SURE:
        return None
    return Flag("side", f"chose the {'left' if count > total / 2 else 'right'} side in {most} of {total} decided votes")
