"""`sipo data check`: go through every row before any training, and report all of it."""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from sipo.data.bad_rows import BadRow
from sipo.data.media.decode_video import Length, measure, read_frames
from sipo.data.media.kinds import MediaFile, describe, frame_files, media_kind, require_kind
from sipo.data.media.pictures import MAX_PIXELS, decode, probe
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.report import CheckReport, Problem
from sipo.data.pairs.rows import PairSource, Ties
from sipo.files import digest, hash_file, own_cache, write_atomic
from sipo.size import Size

VERSION = 5  # of the rules; part of the key of remembered results


@dataclass(frozen=True)
class Content:
    """A usable row, reduced to what tells duplicates: a digest of the prompt and each encoded medium."""

    chosen: bytes
    pair: bytes  # of the prompt, the source and both members, whichever is preferred
    flat: tuple[str, ...] = ()  # the members of one colour all over


def check_pairs(
    path: str | Path | PairSource,
    ties: Ties = "drop",
    max_pairs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: bool = True,
    remember: Path | None = None,
    size: Size | None = None,
    recall: bool = True,
) -> CheckReport:
    """Judge every row: each is usable, or counted under one kind of `KINDS`, the first that applies.

    path: what `open_pairs` takes, or an opened source (then `ties` and `max_pairs` are the source's).
    workers: threads that decode (default: the cores; decoding leaves Python's lock).
    remember: a folder for results (see `default_memory`); where nothing has changed since, it is read from there, unless
    `recall` is False.
    size: of the model's media. Its frames and rate say which videos are too short, and whether videos fit at all; its
    pixels do not matter. Without it images and videos of any length pass.

    Raises UserError where the data cannot be opened at all.
    """
    source = open_pairs(path, ties, max_pairs) if isinstance(path, str | Path) else path
    if remember and recall and (known := _recall(_place(remember, source, max_pixels, size))) is not None:
        return known
    problems: list[Problem] = []
    flat: list[str] = []
    first: dict[bytes, tuple[int, bytes]] = {}  # content -> (row, chosen member) that has it first
    kinds: set[str] = set()
    found = _examine(source, size, max_pixels, workers or os.cpu_count() or 1, kinds)
    for index, result in enumerate(track(found, "checking", total=len(source), disable=not progress, transient=True)):
        if isinstance(result, BadRow):
            problems.append(Problem(index, source.id(index), result.kind, str(result)))
        elif result.pair in first:
            row, chosen = first[result.pair]
            contrary = "" if chosen == result.chosen else ", with the opposite preference"
            problems.append(
                Problem(index, source.id(index), "duplicate", f"the same pair as {source.id(row)}{contrary}")
            )
        else:
            first[result.pair] = index, result.chosen
            flat += [f"{source.id(index)} ({member})" for member in result.flat]
    report = CheckReport(source.schema, len(source), source.ties, tuple(problems), source.fingerprint, tuple(flat))
    if remember:
        write_atomic(_place(remember, source, max_pixels, size), json.dumps(report.to_dict()))
        if size is None and kinds <= {"image"}:  # then a model of images would find the same
            write_atomic(_place(remember, source, max_pixels, Size(1, 1)), json.dumps(report.to_dict()))
    return report


def _place(folder: Path, source: PairSource, max_pixels: int, size: Size | None) -> Path:
    """Where the result of a check is remembered."""
    wanted = None if size is None else [size.num_frames, size.fps]
    return folder / f"{digest([VERSION, source.stamp, len(source), source.ties, max_pixels, wanted])}.json"


def remember_all_usable(source: PairSource, remember: Path, max_pixels: int, size: Size) -> None:
    """As if a check had found no fault: for pairs that were made up."""
    report = CheckReport(source.schema, len(source), source.ties, (), source.fingerprint)
    write_atomic(_place(remember, source, max_pixels, size), json.dumps(report.to_dict()))


def default_memory() -> Path:
    """Where results of checks are remembered between runs: $XDG_CACHE_HOME/sipo/checks, or ~/.cache/sipo/checks."""
    return own_cache("checks")


def _recall(file: Path) -> CheckReport | None:
    try:
        return CheckReport.from_dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _examine(
    source: PairSource, size: Size | None, max_pixels: int, workers: int, kinds: set[str]
) -> Iterator[Content | BadRow]:
    """Row after row, in order; a window of a few hundred rows is in flight, so that memory stays small.

    kinds: those of the media that were seen are added.
    """
    window = 32 * workers
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), window):
            rows = range(start, min(start + window, len(source)))
            yield from pool.map(lambda row: _judge(source, row, size, max_pixels, kinds), rows)


def _judge(source: PairSource, row: int, size: Size | None, max_pixels: int, kinds: set[str]) -> Content | BadRow:
    try:
        pair = source[row]
        members = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
        found = [_look(media, size, max_pixels, kinds) for media in members]
        edited = [] if pair.source is None else [_look_at_source(pair.source, max_pixels, kinds)]
        _require_match([look.length for look in found])
        _require_difference(members, found)
    except BadRow as error:
        return error
    digests = [look.content for look in found]
    prompt = pair.prompt.encode("utf-8", "surrogatepass")
    flat = tuple(name for name, look in zip(("chosen", "rejected"), found, strict=False) if look.flat)
    whole = b"".join([*sorted(digests), *(look.content for look in edited), prompt])
    return Content(digests[0], hashlib.blake2b(whole, digest_size=16).digest(), flat)


@dataclass(frozen=True)
class Look:
    """A member that was decoded to its end: digests of the encoded content and, of a picture, of what was decoded."""

    content: bytes
    pixels: bytes | None = None
    length: Length | None = None  # of a video
    flat: bool = False  # one colour all over, such as the black picture of a safety filter


def _look(media: MediaFile, size: Size | None, max_pixels: int, kinds: set[str]) -> Look:
    kind = require_kind(media, size)
    kinds.add(kind)
    if kind == "image":
        content, image = probe(media, max_pixels)
        seen = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
        seen.update(image.tobytes())
        return Look(hashlib.blake2b(content, digest_size=16).digest(), seen.digest(), flat=_is_flat(image))
    length = measure(media, size, max_pixels)
    with contextlib.closing(read_frames(media, size.fps if size else None, max_pixels)) as frames:
        flat = all(_is_flat(frame.picture()) for frame in frames)  # the first frame decides for nearly all
    return Look(_content_digest(media), length=length, flat=flat)


def _look_at_source(source: MediaFile, max_pixels: int, kinds: set[str]) -> Look:
    if media_kind(source) != "image":
        raise BadRow(f"the source: {describe(source)} is a video; expected a picture", "mismatched")
    try:
        return _look(source, None, max_pixels, kinds)
    except BadRow as error:
        raise BadRow(f"the source: {error}", error.kind) from error


def _is_flat(image: Image.Image) -> bool:
    lowest, highest = np.reshape(image.getextrema(), (-1, 2)).T  # of each band
    return bool((lowest == highest).all())


def _require_difference(members: list[MediaFile], looks: list[Look]) -> None:
    """Raises BadRow (identical) for members of equal content or, however they are encoded, of equal pixels."""
    for (one, other), (a, b) in zip(itertools.pairwise(members), itertools.pairwise(looks), strict=True):
        if a.content == b.content:
            raise BadRow("chosen and rejected are the same file: there is nothing to prefer", "identical")
        if a.pixels and a.pixels == b.pixels and decode(one).tobytes() == decode(other).tobytes():
            raise BadRow("chosen and rejected have the same pixels: there is nothing to prefer", "identical")


def _require_match(lengths: list[Length | None]) -> None:
    """Raises BadRow (mismatched) for an image beside a video, and for videos of different length."""
    for one, other in itertools.pairwise(lengths):
        if (one is None) != (other is None):
            raise BadRow(
                f"the {'rejected' if one is None else 'chosen'} member is a video, the other an image", "mismatched"
            )
        if one is not None and other is not None and one.differs(other):
            raise BadRow(
                f"chosen lasts {one}, rejected {other}: cut both to the same length, or leave it out", "mismatched"
            )


def _content_digest(media: MediaFile) -> bytes:
    if isinstance(media, bytes):
        return hashlib.blake2b(media, digest_size=16).digest()
    hasher = hashlib.blake2b(digest_size=16)
    for path in frame_files(media) if media_kind(media) == "frames" else [media]:
        hasher.update(bytes.fromhex(hash_file(path)))
    return hasher.digest()
