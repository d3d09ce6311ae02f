"""Which pairs of a comparison a page shows, each picture or video embedded once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sipo.evaluate.pages.pictures import Shown, shown

BUDGET = 5_000_000  # bytes of embedded media; what is over stays in its folder


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

    `comparison` is a comparison.json, `folder` where it lies. `rest` False leaves the others out; else they are cut
    where the media pass `budget` bytes in all, and the note says how many are left out. Empty sections are dropped, and
    so are all where no file is there: scores may have come without their media.
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
    gains = _largest(others, num_extreme, lambda pair: pair["difference"])
    losses = _largest(others, num_extreme, lambda pair: -pair["difference"])
    others = [pair for pair in others if pair not in gains and pair not in losses] if rest else []
    fair = tuple(cards([pairs[i] for i in sorted(drawn)]))
    up, down, left = tuple(cards(gains)), tuple(cards(losses)), tuple(cards(others))
    cut = f"{len(others) - len(left)} more lie in their folders." if len(left) < len(others) else ""
    found = [
        Section("Drawn at random", "A fair look: these were not chosen by their scores.", fair),
        Section(f"Where {a} gains most", f"The largest differences in favour of {a}.", up),
        Section(f"Where {a} loses most", f"The largest differences in favour of {b}.", down),
        Section("All other pairs", cut, left, folded=True),
    ]
    return [section for section in found if section.cards]


def _largest(pairs: Sequence[dict], count: int, gain: Callable[[dict], float]) -> list[dict]:
    return sorted((pair for pair in pairs if gain(pair) > 0), key=gain, reverse=True)[:count]


def _is_there(pair: dict, folders: Sequence[str], root: Path) -> bool:
    return any((root / name / side["file"]).is_file() for name, side in zip(folders, pair["sides"], strict=True))


def _card(pair: dict, folders: Sequence[str], root: Path) -> Card:
    a, b = (shown(root / name / side["file"]) for name, side in zip(folders, pair["sides"], strict=True))
    return Card(pair, (a, b))
