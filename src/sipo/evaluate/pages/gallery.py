"""The media of a page: pictures and videos embedded once each, and which pairs of a comparison are shown."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sipo.data.media.kinds import MAX_PICTURE_BYTES
from sipo.errors import UserError
from sipo.evaluate.statistics.verdicts import POINTS
from sipo.files import open_regular, read_regular
from sipo.samples.folder import VIDEO, picture_of

BUDGET = 5_000_000  # bytes of embedded media; anything beyond is left in its folder
THUMBNAIL = 256  # pixels, the longer side of what a page carries
SHEET = 640  # the longer side of a contact sheet, which holds several frames
EXACT = 128  # up to this size a picture is lossless, so that a 64-pixel model is seen by its own pixels
FIRST_LOOK = 4  # pairs that the top of a page shows
MAX_VIDEO = 2_000_000  # bytes; a larger video is shown by its contact sheet alone


@dataclass(frozen=True)
class Shown:
    """One sample on a page, as data URIs. `picture`: itself or a contact sheet (None: unreadable); `video`: or None."""

    picture: str | None
    video: str | None = None

    @property
    def num_bytes(self) -> int:
        return len(self.picture or "") + len(self.video or "")


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
    comparison: dict, folder: Path, num_random: int = 12, num_extreme: int = 12, rest: bool = True, budget: int = BUDGET
) -> list[Section]:
    """Pairs drawn at random first (the fair look), then the largest gains and losses among the others, then the rest.

    `comparison` is one of comparison.json, `folder` the folder of that file. `rest` False omits the others; else they
    end where all media exceed `budget` bytes, and a note gives the number of those not shown. Empty sections are
    dropped, and all of them if no media file exists: scores may have come without their media. A vote measures no
    difference, so wins count as gains of 1, in the order of the pairs.
    """
    pairs, folders = comparison["pairs"], [folder / name for name in comparison["folders"]]
    if not any(file.is_file() for pair in pairs for file in _files(pair, folders)):
        return []
    drawn = set(np.random.default_rng(0).permutation(len(pairs))[:num_random].tolist())
    fair = [pair for i, pair in enumerate(pairs) if i in drawn]
    others = [pair for i, pair in enumerate(pairs) if i not in drawn]
    gains = _largest(others, num_extreme, _gain)
    losses = _largest(others, num_extreme, lambda pair: -_gain(pair))
    others = [pair for pair in others if pair not in gains and pair not in losses] if rest else []
    spent, cards = 0, list[list[Card]]()
    for group in (fair, gains, losses, others):
        cards.append([])
        for pair in group:
            if spent < budget:
                a, b = map(shown, _files(pair, folders))
                cards[-1].append(Card(pair, (a, b)))
                spent += a.num_bytes + b.num_bytes
    fair, gains, losses, left = map(tuple, cards)
    a, b = comparison["names"]
    if comparison["overall"]["difference"] is None:
        gaining, losing, note = "wins", "loses", ""
    else:
        gaining, losing, note = "gains most", "loses most", "The largest differences in favour of {}."
    cut = f"{len(others) - len(left)} more are in their folders." if len(left) < len(others) else ""
    found = [
        Section("Drawn at random", "A fair look: these were not chosen by their results.", fair),
        Section(f"Where {a} {gaining}", note.format(a), gains),
        Section(f"Where {a} {losing}", note.format(b), losses),
        Section("All other pairs", cut, left, folded=True),
    ]
    return [section for section in found if section.cards]


def first_look(found: Sequence[Section], count: int = FIRST_LOOK) -> tuple[tuple[Card, ...], list[Section]]:
    """The first `count` cards of the first section, which is the fair one, and the sections without them."""
    if not found:
        return (), []
    first, *others = found
    left = replace(first, cards=first.cards[count:])
    return first.cards[:count], [left, *others] if left.cards else others


def _gain(pair: dict) -> float:
    """The first side's gain: the difference of the scores, or of a vote 1, 0 or -1."""
    return 2 * POINTS[pair["verdict"]] - 1 if pair["difference"] is None else pair["difference"]


def _largest(pairs: Sequence[dict], count: int, gain: Callable[[dict], float]) -> list[dict]:
    return sorted((pair for pair in pairs if gain(pair) > 0), key=gain, reverse=True)[:count]


def _files(pair: dict, folders: Sequence[Path]) -> list[Path]:
    return [folder / side["file"] for folder, side in zip(folders, pair["sides"], strict=True)]


def shown(media: Path, videos: bool = True) -> Shown:
    """A picture, or a video's contact sheet and, where it is small (and `videos`), the video itself."""
    if (sheet := picture_of(media)) == media:
        return Shown(data_uri(media))
    return Shown(data_uri(sheet, SHEET), _video_uri(media) if videos and media.suffix == VIDEO else None)


def _video_uri(path: Path) -> str | None:
    try:
        content = read_regular(path, MAX_VIDEO)
    except (OSError, UserError):
        return None
    return f"data:video/mp4;base64,{base64.b64encode(content).decode()}" if content else None


def data_uri(path: Path, longest: int = THUMBNAIL) -> str | None:
    """The picture as an `<img src>`: lossless up to 128 pixels, else a JPEG of at most `longest`. None: unreadable."""
    try:
        with open_regular(path, MAX_PICTURE_BYTES) as file, Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, UserError):  # everything that PIL raises
        return None
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    exact = max(image.size) <= EXACT
    buffer = io.BytesIO()
    if exact:
        image.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    else:
        image.save(buffer, "JPEG", quality=85, optimize=True)
    return f"data:image/{'webp' if exact else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
