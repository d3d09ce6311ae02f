"""Pairs in a JSONL manifest: one object a line, images and videos in files (or folders of frames) beside it."""

import functools
import itertools
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sipo.data.bad_rows import BadRow
from sipo.data.pairs.rows import Origin, Pair, Ties
from sipo.data.pairs.scan import Scan, scan
from sipo.data.pairs.schemas import Schema, recognise
from sipo.errors import UserError
from sipo.files import MOST_LINES, digest_long, open_regular
from sipo.lfs import refuse_pointers

_decode = json.JSONDecoder().raw_decode
MOST_LINE = 2**24  # bytes; what a longer line has beyond them counts as lines of their own, which are malformed


@dataclass(frozen=True, eq=False)
class ManifestPairs:
    """`offsets`, `lines`: where each non-blank line starts in the file, and its number from 1.

    has_source: whether the first row that is an object has one; then all must, else none may.
    """

    path: Path
    layout: Schema
    offsets: np.ndarray
    lines: np.ndarray
    has_rejected: bool
    has_source: bool
    ties: Ties = "drop"

    @property
    def schema(self) -> str:
        return self.layout.name

    @functools.cached_property
    def _scan(self) -> Scan:
        has = {"chosen": True, "rejected": self.has_rejected, "source": self.has_source}
        members = [name for name in has if has[name] and self.schema == "pairs"]
        return scan(self.path, self._rows(), self._pair, self.layout.prompt, members)

    @functools.cached_property
    def fingerprint(self) -> str:
        return self._scan.fingerprint

    @property
    def stamp(self) -> str:
        return self._stamp

    @functools.cached_property
    def _stamp(self) -> str:
        return digest_long([self.fingerprint, str(self.path)], map(str, self._scan.times))

    def __getstate__(self) -> dict[str, Any]:
        """Without the scan, which other processes do not need; with what was found by it."""
        return {key: value for key, value in self.__dict__.items() if key != "_scan"}

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._pair(self._row(index), index)

    def _pair(self, row: dict[str, Any], index: int) -> Pair:
        pair = self.layout.read(row, self.id(index), self.path.parent)
        if self.has_rejected and pair.rejected is None:
            raise BadRow("there is no rejected member, though other rows have one", "malformed")
        if self.has_source != (pair.source is not None):
            found, first = ("no source", "one") if self.has_source else ("a source", "none")
            raise BadRow(f"there is {found}, though the first row has {first}", "malformed")
        return pair

    def _row(self, index: int) -> dict[str, Any]:
        with open_regular(self.path, MOST_LINES) as file:
            file.seek(int(self.offsets[index]))
            return parse(file.readline(MOST_LINE))

    def id(self, index: int) -> str:
        return f"{self.path.name}:{self.lines[index]}"

    def _rows(self) -> Iterator[dict[str, Any] | None]:
        """All rows in one pass; None for a line without one."""
        with open_regular(self.path, MOST_LINES) as file:
            for line in itertools.islice(filter(bytes.strip, lines_of(file)), len(self)):
                try:
                    yield parse(line)
                except BadRow:
                    yield None

    def prompts(self, indices: list[int]) -> list[str]:
        if "_scan" not in self.__dict__:
            return [self._row(index)[self.layout.prompt] for index in indices]
        found = self._scan
        return [found.prompts[found.prompt_of[index]] for index in indices]

    def origins(self, indices: list[int]) -> list[Origin]:
        wanted = set(indices)  # in one pass
        found = {index: self.layout.origin(row) for index, row in enumerate(self._rows()) if row and index in wanted}
        return [found[index] for index in indices]


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    return iter(functools.partial(file.readline, MOST_LINE), b"")


def parse(line: bytes) -> dict[str, Any]:
    """The row of a line, which may end with a comma, as lines cut out of a JSON list do. Raises BadRow (malformed)."""
    try:
        text = line.decode().removeprefix("\ufeff").rstrip().removesuffix(",")
        row, end = _decode(text)  # in half the time of json.loads, which says what is wrong
        if end != len(text):
            row = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSON, UTF-8, and "[[[[..."
        raise BadRow(f"not a line of JSON: {error}", "malformed") from error
    if not isinstance(row, dict):
        raise BadRow(f"a line should be a JSON object, not {type(row).__name__}", "malformed")
    return row


def open_manifest(path: Path, ties: Ties, max_pairs: int | None) -> ManifestPairs:
    """Scans the lines once. The schema is that of the first line that is an object.

    Raises UserError for a file that is JSON or text of another kind, and where no line is an object.
    """
    offsets, lines, position = array("q"), array("q"), 0
    schema: Schema | None = None
    reason = ""  # why the first line that is none is no object
    has_rejected = has_source = False
    _require_lines(path)
    with open_regular(path, MOST_LINES) as file:
        for number, line in enumerate(lines_of(file), start=1):
            if max_pairs is not None and len(offsets) == max_pairs:
                break
            if line.strip():
                offsets.append(position)
                lines.append(number)
                if not has_rejected:
                    try:
                        row = parse(line)
                    except BadRow as error:
                        row, reason = None, reason or f"line {number}: {error}"
                    if row is not None:
                        if schema is None:
                            schema = recognise(list(row), f"{path}, line {number},")
                            has_source = schema.name == "pairs" and row.get("source") is not None
                        has_rejected = schema.name != "pairs" or row.get("rejected") is not None
            position += len(line)
    if schema is None:
        raise UserError(f"{path} holds no line that is a JSON object with prompt and chosen; {reason or 'it is empty'}")
    return ManifestPairs(path, schema, np.array(offsets), np.array(lines), has_rejected, has_source, ties)


def _require_lines(path: Path) -> None:
    """Raises UserError, which names it, for a file that begins as UTF-16, a JSON list, or an object of many lines."""
    refuse_pointers([path])
    with open_regular(path, MOST_LINES) as file:
        start = file.read(1024)
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n")[0].strip()
    found = (
        "is UTF-16, not UTF-8" if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:4] else
        "is one JSON list, not an object a line" if first == b"[" or first.startswith(b"[{") else
        "spreads an object over several lines (it is pretty-printed)" if first == b"{" else None
    )  # fmt: skip
    if found:
        raise UserError(f"{path} {found}. `sipo data import {path.name} --out pairs.jsonl` rewrites it")
