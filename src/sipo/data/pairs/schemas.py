"""The tables that are understood: which columns identify them, and how one of their rows becomes a `Pair`."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import MediaFile
from sipo.data.pairs.rows import Pair
from sipo.errors import UserError


@dataclass(frozen=True)
class Schema:
    """One layout of preference data. `required`: columns, or "one or another" of which one must be present."""

    name: str
    prompt: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[dict[str, Any], str, Path], Pair]  # (row, id, folder against which relative paths are resolved)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*(column for choice in self.required for column in choice.split(" or ")), *self.optional)

    def fits(self, columns: Collection[str]) -> bool:
        return all(any(column in columns for column in choice.split(" or ")) for choice in self.required)

    def describe(self) -> str:
        return f"{self.name}: {', '.join(self.required)}" + (
            f" (optional: {', '.join(self.optional)})" if self.optional else ""
        )


def resolve(path: str, folder: Path) -> Path:
    """Where `path` of a data file in `folder` points. Relative paths may not leave the folder: absolute ones may."""
    if "://" in path:
        raise BadRow(f"{path!r} is an address, not a file: download it first", "missing_file")
    if os.path.isabs(path):
        return Path(path)
    inside = os.path.normpath(path)
    if inside.split(os.sep)[0] == os.pardir:
        raise BadRow(
            f"{path!r} leaves the folder of the data: move the files there, or write absolute paths", "malformed"
        )
    return folder / inside


def media(value: Any, folder: Path) -> MediaFile:
    """A cell with an image or a video: bytes, a path, or Hugging Face's {bytes, path}."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None or value in (b"", ""):
        raise BadRow("the image or video is null" if value is None else "the image or video has 0 bytes", "empty_image")
    if isinstance(value, str):
        return resolve(value, folder)
    if isinstance(value, bytes):
        return value
    raise BadRow(f"an image or video should be bytes or a path, not {type(value).__name__}", "malformed")


def prompt(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRow("the caption is null" if value is None else "the caption is blank", "blank_caption")
    if not isinstance(value, str):
        raise BadRow(f"a caption should be text, not {type(value).__name__}", "malformed")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRow("the caption holds half a character (a lone surrogate)", "malformed")
    return value


def read_pick_a_pic(row: dict[str, Any], id: str, folder: Path) -> Pair:
    label = row.get("label_0")
    if row.get("has_label") is False:
        raise BadRow("has_label is false", "unlabelled")
    if not isinstance(label, int | float) or label not in (0, 0.5, 1):  # NaN equals nothing
        raise BadRow(f"label_0 is {label!r}", "bad_label")
    if label == 0.5:
        raise BadRow("label_0 is 0.5", "tie")
    chosen, rejected = ("jpg_0", "jpg_1") if label == 1 else ("jpg_1", "jpg_0")
    return Pair(id, prompt(row.get("caption")), media(row.get(chosen), folder), media(row.get(rejected), folder))


def read_rapidata(row: dict[str, Any], id: str, folder: Path) -> Pair:
    votes: list[Any] = [row.get("votes_image1"), row.get("votes_image2")]
    if not all(isinstance(count, int | float) and 0 <= count < float("inf") for count in votes):
        raise BadRow(f"the votes are {votes[0]!r} and {votes[1]!r}", "bad_label")
    if sum(votes) == 0:
        raise BadRow("nobody voted", "unlabelled")
    if votes[0] == votes[1]:
        raise BadRow(f"{votes[0]:g} votes each", "tie")
    images = [row.get(f"image{n}") if row.get(f"image{n}") is not None else row.get(f"image{n}_path") for n in (1, 2)]
    winner = 0 if votes[0] > votes[1] else 1
    chosen, rejected = media(images[winner], folder), media(images[1 - winner], folder)
    return Pair(id, prompt(row.get("prompt")), chosen, rejected, strength=votes[winner] / sum(votes))


def read_pairs(row: dict[str, Any], id: str, folder: Path) -> Pair:
    strength = 1.0 if row.get("strength") is None else row["strength"]
    if not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise BadRow(f"the strength is {strength!r}, not a number from 0 to 1", "bad_label")
    rejected = None if row.get("rejected") is None else media(row["rejected"], folder)
    return Pair(id, prompt(row.get("prompt")), media(row.get("chosen"), folder), rejected, float(strength))


RAPIDATA = ("prompt", "image1 or image1_path", "image2 or image2_path", "votes_image1", "votes_image2")
SCHEMAS = (
    Schema("Pick-a-Pic", "caption", ("jpg_0", "jpg_1", "label_0", "caption"), ("has_label",), read_pick_a_pic),
    Schema("Rapidata", "prompt", RAPIDATA, (), read_rapidata),
    Schema("pairs", "prompt", ("prompt", "chosen"), ("rejected", "strength"), read_pairs),
)


def recognise(columns: Collection[str], where: str) -> Schema:
    """The schema with those columns. Raises UserError that lists the columns found and the schemas accepted."""
    for schema in SCHEMAS:
        if schema.fits(columns):
            return schema
    urls = [column for column in columns if "url" in column.lower()]
    if urls:
        raise UserError(
            f"{where} holds addresses ({', '.join(urls)}) and no images. Download the images first and put their bytes "
            "in jpg_0 and jpg_1 (Pick-a-Pic), or write a JSONL manifest of the downloaded files: see docs/data.md"
        )
    accepted = "\n".join(f"  {schema.describe()}" for schema in SCHEMAS)
    raise UserError(f"{where} has the columns {', '.join(columns) or '(none)'}, which fit no known schema:\n{accepted}")
