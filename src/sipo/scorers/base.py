"""What a scorer is. `sipo.evaluate.scores.score` works with anything that has one of these shapes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from PIL import Image

Medium = Image.Image | list[Image.Image]
"""A picture, or the frames of a video in order; upright RGB."""
Metadata = Sequence[dict | None] | None
T = TypeVar("T")


class Scorer(Protocol):
    """Media and their prompts in, one finite number each out; higher is better.

    A score depends on its own medium and prompt alone, never on the batch. A scorer is given pictures, unless it is a
    `VideoScorer` too.
    """

    @property
    def name(self) -> str:
        """The file of scores is named by it: letters, digits, dots and dashes."""
        ...

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]: ...


@runtime_checkable
class DetailedScorer(Scorer, Protocol):
    """A scorer that also gives reasons: one mapping a medium of JSON values, among them `score`.

    Two keys have a meaning to the reports: `correct` (bool) and `reasons` (a list of texts).
    """

    def details(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> Sequence[Mapping]: ...


@runtime_checkable
class VideoScorer(Scorer, Protocol):
    """A scorer that takes lists of frames as well as pictures: it is given `num_frames` evenly spaced ones."""

    @property
    def num_frames(self) -> int: ...


@runtime_checkable
class FileScorer(Protocol):
    """A scorer that reads the files itself: a mapping each with a `score`, or with an `error`, the reason."""

    @property
    def name(self) -> str: ...
    @property
    def batch_size(self) -> int:
        """Files a call."""
        ...

    def score_files(self, files: list[Path], prompts: list[str]) -> Sequence[Mapping]: ...


@runtime_checkable
class SourceScorer(Protocol):
    """A scorer that may look at what its media were made of: edits, or videos that begin with a picture.

    Where `reads_sources` is true, its `__call__`, `details` or `score_files` is given one keyword more, `sources`: of each
    medium the picture that it was made of (upright RGB), or for a `FileScorer` that picture's path.
    """

    @property
    def reads_sources(self) -> bool: ...


@runtime_checkable
class ConfiguredScorer(Protocol):
    """A scorer whose numbers depend on settings (JSON values); scores made with others are not kept."""

    @property
    def settings(self) -> dict[str, Any]: ...


def reads_sources(scorer: object) -> bool:
    """Whether it needs the source of each medium (`SourceScorer`)."""
    return isinstance(scorer, SourceScorer) and scorer.reads_sources


def one_picture(medium: Medium) -> Image.Image:
    """Raises ValueError for a video: `FrameMean` takes those apart."""
    if not isinstance(medium, Image.Image):
        raise ValueError("a scorer of pictures got the frames of a video: wrap it in FrameMean")
    return medium


def recorded(scorer: object) -> dict[str, Any]:
    """The fields of a scorer's dataclass that its numbers depend on: without device, batch size and patience."""
    if not is_dataclass(scorer) or isinstance(scorer, type):
        raise TypeError(f"{scorer!r} is not a dataclass")
    return {
        key: value for key, value in asdict(scorer).items() if key not in ("device", "batch_size", "name", "patience")
    }


def in_batches(size: int, score: Callable[..., Iterable[T]], *columns: Sequence) -> list[T]:
    """`score` of `size` rows of the columns at a time, one list out."""
    found: list[T] = []
    for start in range(0, len(columns[0]), size):
        found += score(*(column[start : start + size] for column in columns))
    return found
