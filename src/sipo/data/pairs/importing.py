"""`sipo data import`: pairs in other people's layouts become a manifest that `sipo train` reads; media stay where they are.

Every reader gives comparisons: a prompt, and media from the best to the worst with their ranks (equal ranks are ties).
`docs/data.md` has an example of each layout.
"""

import csv
import errno
import io
import itertools
import json
import os
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import MAX_PICTURE_BYTES, PICTURE_SUFFIXES, VIDEO_SUFFIXES
from sipo.data.pairs.parquet import parquet_schema
from sipo.data.pairs.tables import values
from sipo.errors import UserError, shown
from sipo.files import expand_home, open_regular, read_regular, visible, write_atomic
from sipo.flags import is_absent, read_flag, read_number
from sipo.jsonl import dump_jsonl
from sipo.lfs import refuse_pointers

MEDIA = PICTURE_SUFFIXES | VIDEO_SUFFIXES
SIDES = (("w", "l"), ("win", "lose"), ("chosen", "rejected"), ("preferred", "dispreferred"))
PROMPTS = ("prompt", "caption", "text")
AB = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"))
WINNERS = ("winner", "preference", "choice", "label", "better")
Ranking = Literal["best-worst", "all"]


@dataclass(frozen=True)
class Comparison:
    """Media of one prompt with their ranks, the smallest best; `strength`: how sure the order is; `source`: what they are
    made of."""

    prompt: str
    media: list[Path]
    ranks: list[float]
    strength: float | None = None
    source: Path | None = None


Found = Iterator[Comparison | str]  # a string: why a row gives no pair


def import_pairs(source: Path, out: Path, images: Path | None = None, ranking: Ranking = "best-worst") -> Counter[str]:
    """Write the manifest `out`; returns the number of "pairs", and of rows left out by reason.

    images: where the media of a table are that names them by file or uid (default: beside it). Raises UserError for a
    layout that is not known, and where no pair is found.
    """
    if not source.is_dir():
        refuse_pointers([source])
    rows, counts = [], Counter[str]()
    for found in _reader(source)(source, images or (source if source.is_dir() else source.parent), out):
        if isinstance(found, str):
            counts[found] += 1
            continue
        missing = [path for path in found.media if not os.path.isfile(path)]
        if missing:
            counts["media are missing"] += 1
            continue
        for chosen, rejected in _pairs(found, ranking, counts):
            row = {"prompt": found.prompt, "chosen": _spell(chosen, out), "rejected": _spell(rejected, out)}
            row |= {} if found.strength is None else {"strength": found.strength}
            rows.append(row | ({} if found.source is None else {"source": _spell(found.source, out)}))
    if not rows:
        left = ", ".join(f"{number:,} {why}" for why, number in counts.items()) or "it is empty"
        raise UserError(f"{source}: no pair was found ({left})")
    write_atomic(out, dump_jsonl(rows))
    counts["pairs"] = len(rows)
    return counts


def _pairs(found: Comparison, ranking: Ranking, counts: Counter[str]) -> Iterator[tuple[Path, Path]]:
    order = sorted(zip(found.ranks, found.media, strict=True), key=lambda item: item[0])
    for (a, better), (b, worse) in (
        [(order[0], order[-1])] if ranking == "best-worst" else itertools.combinations(order, 2)
    ):
        if a == b:
            counts["ties"] += 1
        else:
            yield better, worse


def _spell(path: Path, out: Path) -> str:
    """Relative to the manifest where the file lies below its folder, else absolute."""
    path, folder = path.absolute(), out.absolute().parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _reader(source: Path) -> Callable[[Path, Path, Path], Found]:
    if source.is_dir():
        if any(all((source / side).is_dir() for side in sides) for sides in SIDES):
            return _sides
        if any((source / f"metadata.{end}").is_file() for end in ("jsonl", "csv", "parquet")):
            return lambda source, images, out: _table(
                next(f for end in ("jsonl", "csv", "parquet") if (f := source / f"metadata.{end}").is_file()),
                images,
                out,
            )
        if visible(source, source.glob("*.tar")):
            return _tars
    elif source.suffix == ".tar":
        return _tars
    elif source.suffix in (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"):
        return _table
    raise UserError(
        f"{source} is in no known layout: folders w and l (or chosen and rejected), an imagefolder with metadata, webdataset "
        "tars, or a table (.json, .jsonl, .csv, .tsv, .parquet). docs/data.md has an example of each"
    )


def _sides(source: Path, images: Path, out: Path) -> Found:
    """w/NAME.png and l/NAME.jpg, the prompt in w/NAME.txt (or l/, or beside both)."""
    better, worse = next(sides for sides in SIDES if all((source / side).is_dir() for side in sides))
    by_name = {
        side: {f.stem: f for f in visible(source, (source / side).iterdir()) if f.suffix.lower() in MEDIA}
        for side in (better, worse)
    }
    for name in sorted(by_name[better].keys() | by_name[worse].keys()):
        members = [by_name[side].get(name) for side in (better, worse)]
        texts = [f for side in (better, worse, ".") if (f := source / side / f"{name}.txt").is_file()]
        if None in members or not texts:
            yield "without a caption" if None not in members else "without a counterpart"
        else:
            yield Comparison(_text(texts[0]).strip(), [m for m in members if m], [0, 1])


def _table(source: Path, images: Path, out: Path) -> Found:
    for row in _rows(source):
        yield row if isinstance(row, str) else _comparison(row, images)


def _comparison(row: dict[str, Any], images: Path) -> Comparison | str:
    """Of a table's row, by the columns that it has."""
    prompt = next((row[key] for key in PROMPTS if not is_absent(row.get(key))), None)
    if not isinstance(prompt, str):
        return "without a prompt"
    strength = read_number(row.get("strength"))
    for better, worse in (("chosen", "rejected"), ("chosen_file_name", "rejected_file_name")):
        if not is_absent(row.get(better)) and not is_absent(row.get(worse)):
            members = [_media(row[better], images), _media(row[worse], images)]
            source = None if is_absent(row.get("source")) else _media(row["source"], images)
            is_file = source is not None and os.path.isfile(source)  # or the name of a data set
            return Comparison(prompt, members, [0, 1], strength, source if is_file else None)
    listed = row.get("image_path") or row.get("images") or row.get("videos")
    if isinstance(listed, list) and len(listed) > 1:
        ranks = row.get("rank") or row.get("ranking") or list(range(len(listed)))
        if isinstance(row.get("human_preference"), list):  # HPDv2: 1 for the preferred one
            ranks = [None if (number := read_number(one)) is None else 1 - number for one in row["human_preference"]]
        numbers = [read_number(rank) for rank in ranks] if isinstance(ranks, list) else []
        if len(numbers) != len(listed) or None in numbers:
            return "ranks do not fit"
        return Comparison(
            prompt, [_media(one, images) for one in listed], [n for n in numbers if n is not None], strength
        )
    if "image_0_uid" in row and "image_1_uid" in row:  # Pick-a-Pic without pictures
        label = read_number(row.get("label_0"))
        if label not in (0, 0.5, 1) or ("has_label" in row and not read_flag(row["has_label"])):
            return "without a label"
        return Comparison(prompt, [_by_stem(images, row[f"image_{n}_uid"]) for n in (0, 1)], [1 - label, label])
    return _a_or_b(row, prompt, images, strength)


def _a_or_b(row: dict[str, Any], prompt: str, images: Path, strength: float | None) -> Comparison | str:
    lower = {key.lower(): value for key, value in row.items() if key}
    for a, b in AB:
        for kind in ("image", "video", "path", "model"):
            names = [
                next((key for key in (f"{kind}_{side}", f"{kind}{side}") if not is_absent(lower.get(key))), None)
                for side in (a, b)
            ]
            if None in names:
                continue
            winner = str(next((lower[key] for key in WINNERS if not is_absent(lower.get(key))), "")).strip().lower()
            winner = winner.removesuffix(".0").removeprefix(f"{kind}_").removeprefix(kind)
            if winner in ("tie", "both", "equal", "same", "0.5"):
                return "ties"
            if winner not in (a, b):
                return "without a label"
            return Comparison(
                prompt,
                [_media(lower[name], images) for name in names if name],
                [int(winner != a), int(winner != b)],
                strength,
            )
    return "of no known columns"


def _media(value: Any, images: Path) -> Path:
    return images / expand_home(str(value))


def _by_stem(images: Path, stem: Any) -> Path:
    return next((path for end in sorted(MEDIA) if os.path.isfile(path := images / f"{stem}{end}")), images / f"{stem}")


def _rows(source: Path) -> Iterator[dict[str, Any] | str]:
    """Raises UserError for a file that is damaged."""
    if source.suffix == ".parquet":
        wanted = [name for name in parquet_schema(source)[0].names if not name.startswith("jpg_")]
        try:
            for batch in pq.ParquetFile(source).iter_batches(columns=wanted):
                for place in range(len(batch)):
                    yield _cells(pa.Table.from_batches([batch.slice(place, 1)]))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{source} is not a readable parquet file: {error}") from error
        return
    text = _text(source)
    if source.suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if source.suffix == ".tsv" else ",")
        try:
            yield from reader
        except csv.Error as error:
            raise UserError(f"{source}, line {reader.line_num}: not a row of a table ({error})") from error
        return
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):  # one list, or objects one after the other, however they are laid out
        if text[position] in " \t\r\n,":
            position += 1
            continue
        try:
            found, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, position) + 1
            raise UserError(f"{source}, line {line}: not JSON ({error})") from error
        for row in found if isinstance(found, list) else [found]:
            if not isinstance(row, dict):
                raise UserError(f"{source}: expected objects, found {shown(row, 60)}")
            yield row


def _cells(row: pa.Table) -> dict[str, Any] | str:
    try:
        return values(row)
    except BadRow:
        return "damaged"


def _text(file: Path) -> str:
    content = read_regular(file)
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is neither UTF-8 nor UTF-16 text ({error})") from error


def _tars(source: Path, images: Path, out: Path) -> Found:
    """KEY.chosen.jpg, KEY.rejected.jpg, KEY.txt; or KEY.0.jpg, KEY.1.jpg, KEY.json with caption and label_0. Unpacked."""
    for tar in [source] if source.is_file() else visible(source, source.glob("*.tar")):
        groups: dict[str, dict[str, bytes]] = defaultdict(dict)
        try:
            with open_regular(tar) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    name = Path(member.name).name
                    if member.isfile() and not name.startswith("."):
                        if member.size > MAX_PICTURE_BYTES:
                            raise UserError(
                                f"{tar} holds {name} of {member.size:,} bytes; at most {MAX_PICTURE_BYTES:,} are read"
                            )
                        key, _, end = name.partition(".")
                        content = archive.extractfile(member)
                        groups[key][end.lower()] = content.read() if content else b""
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise UserError(f"{tar} is not a readable tar: {error}") from error
        for key, parts in groups.items():
            yield _unpacked(key, parts, out.parent / f"{out.stem}-media" / tar.stem)


def _unpacked(key: str, parts: dict[str, bytes], folder: Path) -> Comparison | str:
    try:
        about = json.loads(parts["json"]) if "json" in parts else {}
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        return "damaged"
    prompt = next(
        (about[name] for name in PROMPTS if not is_absent(about.get(name))),
        parts.get("txt", b"").decode("utf-8", "replace").strip(),
    )
    label = read_number(about.get("label_0"))
    for one, other, ranks in (
        ("chosen", "rejected", [0.0, 1.0]),
        ("0", "1", None if label is None else [1 - label, label]),
    ):
        ends = [
            next((end for end in parts if end.startswith(f"{side}.") and f".{end.split('.')[-1]}" in MEDIA), None)
            for side in (one, other)
        ]
        if None in ends:
            continue
        if not (isinstance(prompt, str) and prompt) or ranks is None:
            return "without a label" if ranks is None else "without a prompt"
        files = [folder / f"{key}.{end}" for end in ends]
        try:
            for file, end in zip(files, ends, strict=True):
                write_atomic(file, parts[str(end)])
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                raise
            return "with a name that no file can have"
        return Comparison(prompt, files, ranks, read_number(about.get("strength")))
    return "without two members"
