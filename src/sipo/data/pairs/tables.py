"""Pairs in tables, memory-mapped, never all in memory: by row, whatever kind of file holds them."""

import functools
import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from sipo.data.bad_rows import BadRow
from sipo.data.pairs.rows import Origin, Pair, Ties
from sipo.data.pairs.schemas import Schema
from sipo.errors import UserError
from sipo.files import digest, open_regular

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE = 65_536  # bytes at the start, the middle and the end; parquet and Arrow keep their indexes at the end


class Table(Protocol):
    """One file or folder of rows."""

    @property
    def rows(self) -> "Dataset": ...

    @property
    def schema(self) -> pa.Schema: ...

    def column(self, name: str) -> pa.ChunkedArray: ...

    def columns(self, names: Sequence[str]) -> pa.Table: ...


@dataclass(frozen=True)
class TablePairs:
    """Tables in one of the known schemas, as Arrow on disk (in `datasets`' "arrow" format, so nothing is decoded)."""

    tables: tuple[Table, ...]
    layout: Schema
    folder: Path  # relative image paths are resolved against it
    names: tuple[str, ...]  # of the tables' files, as ids say them
    starts: tuple[int, ...]  # the first row of each table
    files: tuple[Path, ...]  # what fingerprints look at
    length: int
    ties: Ties = "drop"

    @property
    def schema(self) -> str:
        return self.layout.name

    @property
    def has_rejected(self) -> bool:
        return self.schema != "pairs" or any("rejected" in table.schema.names for table in self.tables)

    @property
    def has_source(self) -> bool:
        return self.schema == "pairs" and any("source" in table.schema.names for table in self.tables)

    @functools.cached_property
    def fingerprint(self) -> str:
        return digest([
            [file.relative_to(self.folder).as_posix(), file.stat().st_size, _sample_digest(file)] for file in self.files
        ])  # fmt: skip

    @property
    def stamp(self) -> str:
        return digest([self.fingerprint, str(self.folder), [file.stat().st_mtime_ns for file in self.files]])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < self.length:
            raise IndexError(index)
        table, position = self._locate(index)
        row: Any = self.tables[table].rows[position]  # in the arrow format, a table of one row
        pair = self.layout.read(values(row), self.id(index), self.folder)
        if self.has_rejected and pair.rejected is None:
            raise BadRow("there is no rejected member", "malformed")
        if self.has_source and pair.source is None:
            raise BadRow("there is no source", "malformed")
        return pair

    def _locate(self, index: int) -> tuple[int, int]:
        table = bisect_right(self.starts, index) - 1
        return table, index - self.starts[table]

    def id(self, index: int) -> str:
        table, position = self._locate(index)
        return f"{self.names[table]}:{position}"

    def origins(self, indices: list[int]) -> list[Origin]:
        places, found = [self._locate(index) for index in indices], {}
        for table in sorted({table for table, _ in places}):
            found[table] = _cells(self.tables[table].columns(self.layout.origin_columns))
        return [self.layout.origin(found[table][position] if found[table] else {}) for table, position in places]

    def prompts(self, indices: list[int]) -> list[str]:
        places, wanted, texts = [self._locate(index) for index in indices], defaultdict(list), {}
        for table, position in places:
            wanted[table].append(position)
        for table, positions in wanted.items():
            texts[table] = self._texts.get(table) or _texts(self.tables[table].column(self.layout.prompt), positions)
            if isinstance(texts[table], list):  # equal ones are kept once
                texts[table] = self._texts[table] = [self._words.setdefault(text, text) for text in texts[table]]
        return [texts[table][position] for table, position in places]

    @functools.cached_property
    def _texts(self) -> dict[int, list[str]]:
        """The prompts of the tables that were asked for: a column of text is small beside the images."""
        return {}

    @functools.cached_property
    def _words(self) -> dict[str, str]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the prompts, which other processes do not need."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_texts", "_words")}


def _texts(column: pa.ChunkedArray, positions: list[int]) -> Sequence[str] | dict[int, str]:
    """The texts of a column by position; where some are damaged, only those asked for, one by one."""
    try:
        column.validate(full=True)
        return column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        return {position: column[position].as_py() for position in positions}


def _cells(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table of labels and names; none without columns. Raises UserError for a damaged one."""
    try:
        table.validate(full=True)
        return table.to_pylist() if table.column_names else []
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise UserError(f"the columns {', '.join(table.column_names)} cannot be read: {error}") from error


def values(row: pa.Table) -> dict[str, Any]:
    """The cells of a table of one row. Raises BadRow (malformed) for one that is damaged, or beyond what Python holds."""
    found = {}
    for name, column in zip(row.column_names, row.columns, strict=True):
        try:
            column.validate(full=True)  # a damaged offset would be followed anywhere
            found[name] = column[0].as_py()
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise BadRow(f"{name} cannot be read: {error}", "malformed") from error
    return found


def _sample_digest(path: Path) -> str:
    size = path.stat().st_size
    hasher = hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        for start in sorted({0, max(size // 2 - SAMPLE // 2, 0), max(size - SAMPLE, 0)}):
            file.seek(start)
            hasher.update(file.read(SAMPLE))
    return hasher.hexdigest()
