"""The tables that are understood: which columns identify them, and how one of their rows becomes a `Pair`."""

import functools
import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import MediaFile
from sipo.data.pairs.rows import Origin, Pair
from sipo.errors import UserError, printable
from sipo.files import expand_home
from sipo.flags import is_absent, read_flag, read_number


@dataclass(frozen=True)
class Schema:
    """One layout of preference data. `required`: columns, or "one or another" of which one must be present.

    origin: what a row records of its origin, read from `origin_columns`, which any row may lack.
    """

    name: str
    prompt: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[dict[str, Any], str, Path], Pair]  # (row, id, folder against which relative paths are resolved)
    origin: Callable[[dict[str, Any]], Origin]
    origin_columns: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*(column for choice in self.required for column in choice.split(" or ")), *self.optional)

    def fits(self, columns: Collection[str]) -> bool:
        return not self.lacking(columns)

    def lacking(self, columns: Collection[str]) -> list[str]:
        """The required ones that are missing."""
        return [choice for choice in self.required if not any(column in columns for column in choice.split(" or "))]

    def describe(self) -> str:
        return f"{self.name}: {', '.join(self.required)}" + (
            f" (optional: {', '.join(self.optional)})" if self.optional else ""
        )


def resolve(path: str, folder: Path) -> Path:
    """Where `path` of a data file in `folder` points. Relative paths may not leave the folder: absolute ones may."""
    if "://" in path:
        raise BadRow(f"{path!r} is an address, not a file: download it first", "missing_file")
    path = expand_home(path)
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
    if "has_label" in row:
        _require_label(row["has_label"])
    label, other = _label(row.get("label_0")), row.get("label_1")
    if label not in (0, 0.5, 1):
        raise BadRow(f"label_0 is {row.get('label_0')!r}", "bad_label")
    if not is_absent(other) and _label(other) != 1 - label:
        raise BadRow(f"label_0 is {label:g} and label_1 {other!r}; expected 1 for one, 0 for the other", "bad_label")
    if label == 0.5:
        raise BadRow("label_0 is 0.5", "tie")
    chosen, rejected = ("jpg_0", "jpg_1") if label == 1 else ("jpg_1", "jpg_0")
    return Pair(id, prompt(row.get("caption")), media(row.get(chosen), folder), media(row.get(rejected), folder))


def _label(value: Any) -> float | None:
    number = read_number(value)
    return read_flag(value) if number is None else number


def _require_label(has_label: Any) -> None:
    """Raises BadRow for a row that has none, and for a flag that cannot be read."""
    flag = read_flag(has_label)
    if flag is None and not is_absent(has_label):
        raise BadRow(f"has_label is {has_label!r}; expected true or false", "bad_label")
    if not flag:
        raise BadRow(f"has_label is {'null' if flag is None else 'false'}", "unlabelled")


def read_rapidata(row: dict[str, Any], id: str, folder: Path) -> Pair:
    found = [row.get("votes_image1"), row.get("votes_image2")]
    votes = [count for count in map(read_number, found) if count is not None and count >= 0]
    if len(votes) < 2:
        raise BadRow(f"the votes are {found[0]!r} and {found[1]!r}", "bad_label")
    if sum(votes) == 0:
        raise BadRow("nobody voted", "unlabelled")
    if votes[0] == votes[1]:
        raise BadRow(f"{votes[0]:g} votes each", "tie")
    images = [row.get(f"image{n}") if row.get(f"image{n}") is not None else row.get(f"image{n}_path") for n in (1, 2)]
    winner = 0 if votes[0] > votes[1] else 1
    chosen, rejected = media(images[winner], folder), media(images[1 - winner], folder)
    return Pair(id, prompt(row.get("prompt")), chosen, rejected, strength=votes[winner] / sum(votes))


def read_pairs(row: dict[str, Any], id: str, folder: Path) -> Pair:
    strength = 1.0 if is_absent(row.get("strength")) else read_number(row["strength"])
    if strength is None or not 0 <= strength <= 1:
        raise BadRow(f"the strength is {row['strength']!r}, not a number from 0 to 1", "bad_label")
    rejected, source = (None if row.get(key) is None else media(row[key], folder) for key in ("rejected", "source"))
    return Pair(id, prompt(row.get("prompt")), media(row.get("chosen"), folder), rejected, strength, source)


def origin_pick_a_pic(row: dict[str, Any]) -> Origin:
    members = [[row.get(f"{key}_{n}") for key in ORIGIN] for n in (0, 1)]
    return _origin(members, _label(row.get("label_0")) == 1)


def origin_rapidata(row: dict[str, Any]) -> Origin:
    members = [[row.get(f"{key}{n}") for key in ORIGIN] for n in (1, 2)]
    first, second = (read_number(row.get(f"votes_image{n}")) or 0 for n in (1, 2))
    return _origin(members, first > second)


def origin_pairs(row: dict[str, Any]) -> Origin:
    return replace(_origin([[row.get(f"{member}_{key}") for key in ORIGIN] for member in MEMBERS], True), first=None)


def _origin(members: list[list[Any]], first: bool) -> Origin:
    """members: what a row has under `ORIGIN` of each, in its order; first: whether the first one is the chosen one."""
    (model, seed, sampler), (other_model, other_seed, other_sampler) = members if first else members[::-1]
    return Origin(
        first,
        (_name(model), _name(other_model)),
        (_seed(seed), _seed(other_seed)),
        (_sampler(sampler), _sampler(other_sampler)),
    )


def _seed(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _sampler(value: Any) -> Mapping[str, Any] | None:
    """The settings: an object, or its JSON."""
    if isinstance(value, str):
        return _parsed(value)
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else None


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _name(value: Any) -> str:
    """A model's name, printable."""
    return "" if is_absent(value) else printable(value).strip()


MEMBERS, ORIGIN = ("chosen", "rejected"), ("model", "seed", "sampler")
RAPIDATA = ("prompt", "image1 or image1_path", "image2 or image2_path", "votes_image1", "votes_image2")
SCHEMAS = (
    Schema(
        "Pick-a-Pic",
        "caption",
        ("jpg_0", "jpg_1", "label_0", "caption"),
        ("label_1", "has_label"),
        read_pick_a_pic,
        origin_pick_a_pic,
        ("label_0", *(f"{key}_{n}" for key in ORIGIN for n in (0, 1))),
    ),
    Schema(
        "Rapidata",
        "prompt",
        RAPIDATA,
        (),
        read_rapidata,
        origin_rapidata,
        ("votes_image1", "votes_image2", "model1", "model2"),
    ),
    Schema(
        "pairs",
        "prompt",
        ("prompt", "chosen"),
        ("rejected", "strength", "source"),
        read_pairs,
        origin_pairs,
        tuple(f"{member}_{key}" for member in MEMBERS for key in ORIGIN),
    ),
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
    nearest = min(SCHEMAS, key=lambda schema: len(schema.lacking(columns)))
    lacks = f"It lacks {', '.join(nearest.lacking(columns))} of {nearest.name}. Known schemas:"
    accepted = "\n".join(f"  {schema.describe()}" for schema in SCHEMAS)
    raise UserError(
        f"{where} has the columns {', '.join(columns) or '(none)'}, which fit no known schema. {lacks}\n{accepted}"
    )
