"""Which pairs of a comparison a page shows, each picture or video embedded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sipo.evaluate.pages.pictures import Shown, shown

BUDGET = 5_000_000  # bytes of embedded media; anything beyond is left in its folder


@dataclass(frozen=True)
class Card:
    """One pair, ready to show; its `sides` are as in comparison.json, `media` holds what to show of each."""

    pair: dict
    media: tuple[Shown, Shown]


@dataclass(frozen=True)
class Section:
    """A titled group of cards; a `folded` one opens by a click."""

    title: str
    note: str
    cards: tuple[Card, ...]
    folded: bool = False


def sections(
    comparison: dict,
    folder: Path,
    num_random: int = 12,
    num_extreme: int = 12,
    rest: bool = True,
    budget: int = BUDGET,
) -> list[Section]:
    """Pairs drawn at random first (the fair look), then the largest gains and losses among the others, then the rest.

    `comparison` is one of comparison.json, `folder` the folder of that file. `rest` False omits the others; else they
    end where all media exceed `budget` bytes, and a note gives the number of those not shown. Empty sections are
    dropped, and all of them if no media file exists: scores may have come without their media. A vote measures no
    difference, so wins count as gains of 1, in the order of the pairs.
    """
    pairs = comparison["pairs"]
    spent = 0
    if not any(_is_there(pair, comparison["folders"], folder) for pair in pairs):
        return []

    def cards(chosen: Sequence[dict]) -> Iterator[Card]:
        nonlocal spent
        for pair in chosen:
            if spent < budget:
                card = _card(pair, comparison["folders"], folder)
                spent += sum(shown.num_bytes for shown in card.media)
                yield card

    a, b = comparison["names"]
    drawn = np.random.default_rng(0).permutation(len(pairs))[:num_random]
    others = [pair for i, pair in enumerate(pairs) if i not in set(drawn.tolist())]
    gains = _largest(others, num_extreme, _gain)
    losses = _largest(others, num_extreme, lambda pair: -_gain(pair))
    others = [pair for pair in others if pair not in gains and pair not in losses] if rest else []
    fair = tuple(cards([pairs[i] for i in sorted(drawn)]))
    up, down, left = tuple(cards(gains)), tuple(cards(losses)), tuple(cards(others))
    cut = f"{len(others) - len(left)} more are in their folders." if len(left) < len(others) else ""
    if comparison["overall"]["difference"] is None:
        gaining, losing, note = "wins", "loses", ""
    else:
        gaining, losing, note = "gains most", "loses most", "The largest differences in favour of {}."
    found = [
        Section("Drawn at random", "A fair look: these were not chosen by their results.", fair),
        Section(f"Where {a} {gaining}", note.format(a), up),
        Section(f"Where {a} {losing}", note.format(b), down),
        Section("All other pairs", cut, left, folded=True),
    ]
    return [section for section in found if section.cards]


def _gain(pair: dict) -> float:
    """The first side's gain: the difference of the scores, or of a vote 1, 0 or -1."""
    signs = {"win": 1.0, "tie": 0.0, "loss": -1.0}
    return signs[pair["verdict"]] if pair["difference"] is None else pair["difference"]


def _largest(pairs: Sequence[dict], count: int, gain: Callable[[dict], float]) -> list[dict]:
    return sorted((pair for pair in pairs if gain(pair) > 0), key=gain, reverse=True)[:count]


def _is_there(pair: dict, folders: Sequence[str], root: Path) -> bool:
    return any((root / name / side["file"]).is_file() for name, side in zip(folders, pair["sides"], strict=True))


def _card(pair: dict, folders: Sequence[str], root: Path) -> Card:
    a, b = (shown(root / name / side["file"]) for name, side in zip(folders, pair["sides"], strict=True))
    return Card(pair, (a, b))
