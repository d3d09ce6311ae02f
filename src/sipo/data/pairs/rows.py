"""What a reader hands out: a `Pair`, or a `BadRow` that says why there is none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from sipo.errors import UserError

Media = bytes | Path  # an encoded file's content, or where it lies; a folder is a video, a picture a frame
Ties = Literal["drop", "error"]

# Every reason for which a row is left out, in the order in which reports list them.
KINDS: dict[str, str] = {
    "tie": "ties: neither member is preferred",
    "unlabelled": "rows without a label",
    "malformed": "rows that cannot be read as the schema says",
    "bad_label": "labels other than 0, 0.5 or 1",
    "blank_caption": "null or blank captions",
    "missing_file": "files that are not there",
    "empty_image": "empty images or videos (null, 0 bytes, a folder without pictures)",
    "truncated": "truncated images or videos",
    "undecodable": "images or videos that cannot be decoded",
    "too_large": "images or videos over the cap on pixels or frames",
    "too_short": "videos shorter than the model's",
    "mismatched": "pairs of different length or of an image and a video, videos for a model of images",
    "duplicate": "duplicates of an earlier pair (same prompt and media, in either order)",
}


class BadRow(UserError):
    """A row that gives no usable pair. `kind` is a key of `KINDS`; the message says what was found.

    One positional argument is enough to build it, because torch rebuilds exceptions of loader workers from their text.
    """

    def __init__(self, detail: str = "", kind: str = "undecodable") -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class Pair:
    """One labelled comparison, its images or videos still encoded.

    id: where it stands, for people and for seeding: "file.parquet:17" (row, from 0) or "pairs.jsonl:17" (line, from 1).
    rejected: None in data without rejected members, which serves SFT alone.
    strength: share of the votes for the chosen member, in [0.5, 1] where votes were counted; 1 where none were.
    """

    id: str
    prompt: str
    chosen: Media
    rejected: Media | None
    strength: float = 1.0


class PairSource(Protocol):
    """Rows of preference data, read lazily and picklable, so that each loader worker opens its own files."""

    schema: str
    has_rejected: bool
    ties: Ties

    @property
    def fingerprint(self) -> str:
        """What the data is, wherever it lies: names, sizes and samples of the content. A cache remembers it."""
        ...

    @property
    def stamp(self) -> str:
        """As `fingerprint`, and times of modification too: what the result of a check remembers."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair:
        """The row's pair. Raises `BadRow` for a tie, a missing label, a blank caption, ...; decodes nothing."""
        ...

    def id(self, index: int) -> str:
        """The row's `Pair.id`, also for rows that give no pair."""
        ...

    def prompts(self, indices: list[int]) -> list[str]:
        """The prompts of those (usable) rows, without reading their media."""
        ...
