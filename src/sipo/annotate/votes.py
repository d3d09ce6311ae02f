"""What people said, reduced to figures: majorities, the win rate, agreement. Pure functions on labels.

A label is about the first of two results: "a" (it is better), "b" (the other is), "tie". "Both bad" counts as a tie here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

Label = Literal["a", "b", "tie"]
Rule = Literal["tie", "plurality"]
LABELS: tuple[Label, ...] = ("a", "b", "tie")
RULES: tuple[Rule, ...] = ("tie", "plurality")
POINTS: Mapping[str, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


def majority(labels: Sequence[str], rule: Rule = "tie") -> Label:
    """The label of several people (the paper's Appendix E.3).

    rule "tie": a label needs more than half of the votes, else the result is a tie, so 2-1-1 is a tie, and so is 2-2.
    rule "plurality": the most frequent label is enough (2-1-1 goes to the 2); a tie where several are most frequent.
    Raises ValueError without labels, for a label that is none of `LABELS` and for another rule.
    """
    if rule not in RULES:
        raise ValueError(f"The rule is one of {', '.join(RULES)}, not {rule!r}.")
    count = _counted(labels)
    (label, most), *others = count.most_common()
    if rule == "tie":
        return label if 2 * most > count.total() else "tie"
    return "tie" if others and others[0][1] == most else label


def two_stage(labels_by_group: Mapping | Iterable[Sequence[str]], rule: Rule = "tie") -> Label:
    """Majority within each group, then across the groups' labels, by the same rule (the paper's Appendix E.3).

    labels_by_group: the labels of each group, a mapping or a sequence. Three groups need two that agree, else it is a
    tie. Groups without labels do not count. Raises ValueError as `majority` does, and where no group has a label.
    """
    groups = labels_by_group.values() if isinstance(labels_by_group, Mapping) else labels_by_group
    return majority([majority(labels, rule) for labels in groups if len(labels)], rule)


def win_rate(labels: Sequence[str]) -> float:
    """(wins of "a" + ties / 2) / all. Raises ValueError without labels."""
    count = _counted(labels)
    return math.fsum(POINTS[label] * number for label, number in count.items()) / count.total()


def agreement(table: Sequence[Sequence[int]] | np.ndarray) -> dict[str, float]:
    """{"fleiss_kappa", "krippendorff_alpha"} of a table (items x categories) of counts: how often each label was given.

    Fleiss (1971), with unequal numbers of votes allowed: an item's share of agreeing pairs of votes, averaged over items,
    against the chance of agreement from all votes' shares. Krippendorff's alpha for nominal data (2004, chapter 11):
    1 - observed / expected disagreement, where an item weighs as many as its votes. Items with fewer than two votes tell
    nothing about agreement and are left out. NaN where nothing could disagree: no such items, or one category alone.
    Raises ValueError for a table that is not two-dimensional, or has negative counts.
    """
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or (counts < 0).any():
        raise ValueError("Expected a table of counts, items x categories, none of them negative.")
    counts = counts[counts.sum(1) >= 2]
    votes = counts.sum(1)  # (N,)
    total = votes.sum()
    if np.count_nonzero(counts.sum(0)) < 2:
        return {"fleiss_kappa": math.nan, "krippendorff_alpha": math.nan}
    shares = counts.sum(0) / total  # (C,)
    agreeing = (counts * (counts - 1)).sum(1)  # ordered pairs of equal votes of an item
    by_chance = (shares**2).sum()
    kappa = ((agreeing / (votes * (votes - 1))).mean() - by_chance) / (1 - by_chance)
    observed = 1 - (agreeing / (votes - 1)).sum() / total
    expected = 1 - (counts.sum(0) * (counts.sum(0) - 1)).sum() / (total * (total - 1))
    return {"fleiss_kappa": float(kappa), "krippendorff_alpha": float(1 - observed / expected)}


def _counted(labels: Sequence[str]) -> Counter:
    count = Counter(labels)
    if not count:
        raise ValueError("There is no label.")
    if unknown := [label for label in count if label not in LABELS]:
        raise ValueError(f"A label is one of {', '.join(LABELS)}, not {unknown[0]!r}.")
    return count
