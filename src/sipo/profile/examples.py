"""Pairs to look at: those at both ends of every order, and those that repeat."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sipo.evaluate.pages.gallery import BUDGET, Shown, shown
from sipo.profile.pictures import MediaFiles
from sipo.profile.results import Measured

EACH = 6  # pairs at an end


@dataclass(frozen=True)
class Example:
    """One pair: chosen on the left, rejected on the right, a line of text below each."""

    prompt: str
    media: tuple[Shown, Shown]
    notes: tuple[str, str]


@dataclass(frozen=True)
class Examples:
    """A titled group."""

    title: str
    note: str
    cards: list[Example]


@dataclass
class Cards:
    """Makes examples, without their media where the page would grow beyond its budget."""

    files: MediaFiles
    left: int = field(default=BUDGET)

    def make(self, prompt: str, row: int, notes: tuple[str, str]) -> Example:
        chosen, rejected = (
            shown(self.files.picture(row, member)) if self.left > 0 else Shown(None) for member in (0, 1)
        )
        self.left -= chosen.num_bytes + rejected.num_bytes
        return Example(prompt, (chosen, rejected), notes)


def both_ends(measured: Measured, scores: Mapping[str, np.ndarray], files: MediaFiles) -> list[Examples]:
    """By the distance from the base's own samples, by what the base prefers, by each scorer's difference."""
    cards, everywhere = Cards(files), range(len(measured.rows))
    means = measured.ratios.mean(2)  # (M, 2)
    groups = _ends(
        cards, measured, measured.own_places, means.sum(1),
        [(f"{math.exp(a):.2f} x", f"{math.exp(b):.2f} x") for a, b in means.tolist()],
        ("Least like the base's own samples", "The largest errors against those on its samples for the same prompts, over both members."),
        ("Most like its own samples", "The smallest."),
    )  # fmt: skip
    errors = np.stack([measured.chosen.values, measured.rejected.values], axis=1)  # (N, 2, draws)
    groups += _ends(
        cards, measured, everywhere, np.log(errors[:, 1] / errors[:, 0]).mean(1),
        [(f"error {a:.4g}", f"error {b:.4g}") for a, b in errors.mean(2).tolist()],
        ("The base agrees most with the label", "It predicts the chosen member better, by the largest ratio."),
        ("The base agrees least", "The other end of the same order."),
    )  # fmt: skip
    for name, values in scores.items():
        groups += _ends(
            cards, measured, everywhere, values[:, 0] - values[:, 1],
            [(f"{a:.4g}", f"{b:.4g}") for a, b in values.tolist()],
            (f"{name} agrees most with the label", "The largest differences of the scores."),
            (f"{name} agrees least", "Wrong labels, if there are any, are among these."),
        )  # fmt: skip
    return groups


def _ends(
    cards: Cards, measured: Measured, places: Sequence[int], values: np.ndarray, notes: Sequence[tuple[str, str]],
    high: tuple[str, str], low: tuple[str, str],
) -> list[Examples]:  # fmt: skip
    """values, notes: of the pairs at `places`; high, low: title and note of an end."""
    order = [number for number in np.argsort(-values, kind="stable").tolist() if np.isfinite(values[number])]
    each = min(EACH, len(order) // 2)
    return [
        Examples(
            title, note, [cards.make(measured.prompts[places[n]], measured.rows[places[n]], notes[n]) for n in end]
        )
        for (title, note), end in ((high, order[:each]), (low, order[::-1][:each]))
        if end
    ]


def repeats(record: Mapping[str, Any], rows: Mapping[str, int], files: MediaFiles) -> list[Examples]:
    """The first pairs of each kind of repetition. record: `duplicates` of a profile; rows: of all pairs, by their ids."""
    cards, couples = Cards(files), {key: record[key][: EACH // 2] for key in ("contrary", "repeated")}
    two = "Two cards a repetition: the earlier pair, then the later one."
    found = [
        ("Members that look alike", "", record["twins"][:EACH]),
        ("Repeated with the opposite preference", two, [id for couple in couples["contrary"] for id in couple]),
        ("Repeated", two, [id for couple in couples["repeated"] for id in couple]),
    ]
    return [
        Examples(title, note, [cards.make(files.source.prompts([rows[id]])[0], rows[id], (id, "")) for id in ids])
        for title, note, ids in found
        if ids
    ]
