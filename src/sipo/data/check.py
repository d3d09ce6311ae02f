"""`sipo data check`: go through every row before any training, and report all of it."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from sipo.data.check_report import CheckReport, Problem
from sipo.data.fingerprint import digest
from sipo.data.media import MAX_PIXELS, probe
from sipo.data.pairs import open_pairs
from sipo.data.rows import BadRow, PairSource, Ties
from sipo.files import write_atomic

VERSION = 1  # of the rules; part of the key of remembered results


@dataclass(frozen=True)
class Content:
    """A usable row, reduced to what tells duplicates: a digest of the prompt and each encoded picture."""

    chosen: bytes
    pair: bytes  # of the prompt and both pictures, whichever is preferred


def check_pairs(
    path: str | Path | PairSource,
    ties: Ties = "drop",
    max_pairs: int | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: bool = True,
    remember: Path | None = None,
) -> CheckReport:
    """Judge every row: each is usable, or counted under one kind of `KINDS`, the first that applies.

    path: what `open_pairs` takes, or an opened source (then `ties` and `max_pairs` are the source's).
    workers: threads that decode (default: the cores; decoding leaves Python's lock).
    remember: a folder for results (see `default_memory`); where nothing has changed since, it is read from there.

    Raises UserError where the data cannot be opened at all.
    """
    source = open_pairs(path, ties, max_pairs) if isinstance(path, str | Path) else path
    key = digest([VERSION, source.stamp, len(source), source.ties, max_pixels]) if remember else ""
    if remember and (known := _recall(remember / f"{key}.json")) is not None:
        return known
    problems: list[Problem] = []
    first: dict[bytes, tuple[int, bytes]] = {}  # content -> (row, chosen picture) that has it first
    found = _examine(source, max_pixels, workers or os.cpu_count() or 1)
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
    report = CheckReport(source.schema, len(source), source.ties, tuple(problems), source.fingerprint)
    if remember:
        write_atomic(remember / f"{key}.json", json.dumps(report.to_dict()))
    return report


def default_memory() -> Path:
    """Where results of checks are remembered between runs: $XDG_CACHE_HOME/sipo/checks, or ~/.cache/sipo/checks."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sipo" / "checks"


def _recall(file: Path) -> CheckReport | None:
    try:
        return CheckReport.from_dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _examine(source: PairSource, max_pixels: int, workers: int) -> Iterator[Content | BadRow]:
    """Row after row, in order; a window of a few hundred rows is in flight, so that memory stays small."""
    window = 32 * workers
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(source), window):
            rows = range(start, min(start + window, len(source)))
            yield from pool.map(lambda row: _judge(source, row, max_pixels), rows)


def _judge(source: PairSource, row: int, max_pixels: int) -> Content | BadRow:
    try:
        pair = source[row]
        members = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
        pictures = [hashlib.blake2b(probe(media, max_pixels), digest_size=16).digest() for media in members]
    except BadRow as error:
        return error
    prompt = pair.prompt.encode("utf-8", "surrogatepass")
    return Content(pictures[0], hashlib.blake2b(b"".join(sorted(pictures)) + prompt, digest_size=16).digest())
