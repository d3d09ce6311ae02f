"""What readers of preference data share: the pair, and the protocol of a source of pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from sipo.data.media.kinds import MediaFile

Ties = Literal["drop", "error"]


@dataclass(frozen=True)
class Pair:
    """One labelled comparison, its images or videos still encoded.

    id: where it stands, for people and for seeding: "file.parquet:17" (row, from 0) or "pairs.jsonl:17" (line, from 1).
    rejected: None in data without rejected members, which serves SFT alone.
    strength: share of the votes for the chosen member, in [0.5, 1] where votes were counted; 1 where none were.
    source: the picture that both members are edits of, or begin with; None in data without.
    """

    id: str
    prompt: str
    chosen: MediaFile
    rejected: MediaFile | None
    strength: float = 1.0
    source: MediaFile | None = None


@dataclass(frozen=True)
class Origin:
    """What a row records of where its pair comes from.

    first: whether the chosen member stands first in the row; None where the layout has no order.
    models: what made the chosen and the rejected member; "" where the row does not record it.
    seeds, samplers: of generated members, the seed of each and the settings of what drew it; None where not recorded.
    """

    first: bool | None = None
    models: tuple[str, str] = ("", "")
    seeds: tuple[int | None, int | None] = (None, None)
    samplers: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None)


class PairSource(Protocol):
    """Rows of preference data, read lazily and picklable, so that each loader worker opens its own files."""

    @property
    def ties(self) -> Ties: ...

    @property
    def schema(self) -> str: ...

    @property
    def has_rejected(self) -> bool: ...

    @property
    def has_source(self) -> bool: ...

    @cached_property
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

    def origins(self, indices: list[int]) -> list[Origin]:
        """The origins of those (usable) rows, without reading their media."""
        ...
