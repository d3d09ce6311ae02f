"""Pairs in tables: parquet files, and folders saved by Hugging Face `datasets`; memory-mapped, never all in memory."""

import contextlib
import functools
import glob
import hashlib
import re
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sipo.data.bad_rows import BadRow
from sipo.data.pairs.rows import Origin, Pair, Ties
from sipo.data.pairs.schemas import Schema, recognise
from sipo.errors import UserError, shown
from sipo.files import digest, open_regular, visible
from sipo.jsonl import read_object
from sipo.lfs import refuse_pointers

if TYPE_CHECKING:
    from datasets import Dataset

SPLIT = re.compile(r"(?P<split>.+?)-\d{3,}-of-\d{3,}")  # train-00000-of-00645-b66ac786bf6fb553.parquet
SAMPLE = 65_536  # bytes at the start, the middle and the end; parquet and Arrow keep their indexes at the end


CONVERTING = threading.Lock()  # the threads of a check want the same table at once


@dataclass(frozen=True)
class ParquetTable:
    """A parquet file in columns of `schema`. It is converted to Arrow when a row is read, which with a cache none is."""

    file: Path
    schema: pa.Schema

    @property
    def rows(self) -> "Dataset":
        with CONVERTING:
            return self._converted

    @functools.cached_property
    def _converted(self) -> "Dataset":
        return convert(self.file, self.schema)

    def column(self, name: str) -> pa.ChunkedArray:
        return self.columns([name])[name]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Those of the names that the file has, of its `schema` or not."""
        try:
            with pq.ParquetFile(self.file) as table:  # pq.read_table would import pandas
                return table.read([name for name in names if name in table.schema_arrow.names])
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.file} could not be read: {error}") from error


@dataclass(frozen=True)
class SavedTable:
    """What `datasets` saved as Arrow."""

    rows: "Dataset"

    @property
    def schema(self) -> pa.Schema:
        return self.rows.features.arrow_schema

    def column(self, name: str) -> pa.ChunkedArray:
        return self.columns([name])[name]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Those of the names that there are."""
        found: Any = self.rows.select_columns([name for name in names if name in self.rows.column_names])
        return found[:]


@dataclass(frozen=True)
class TablePairs:
    """Tables in one of the known schemas, as Arrow on disk (in `datasets`' "arrow" format, so nothing is decoded)."""

    tables: tuple[ParquetTable | SavedTable, ...]
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


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """`datasets` without its progress bars, which say nothing in the seconds that most tables take."""
    import datasets

    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def parquet_schema(file: Path) -> tuple[pa.Schema, int]:
    refuse_pointers([file])
    try:
        with pq.ParquetFile(file) as parquet:
            return parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} is not a readable parquet file: {error}") from error


def training_shards(files: list[Path]) -> list[Path]:
    """Of shards named `<split>-00000-of-00645...`, those of the train split. Raises UserError where it is ambiguous."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        match = SPLIT.match(file.name)
        splits.setdefault(match["split"] if match else "", []).append(file)
    if len(splits) == 1:
        return files
    if "train" not in splits or "" in splits:
        found = ", ".join(split or "(no split in the name)" for split in splits)
        raise UserError(
            f"{files[0].parent} mixes the splits {found}: give the files of one split a folder of their own"
        )
    return splits["train"]


def open_parquet(files: list[Path], folder: Path, ties: Ties, max_pairs: int | None) -> TablePairs:
    """Parquet shards in the given order; they may differ in optional columns and in types.

    `datasets` converts each to Arrow, once, in its own cache (HF_DATASETS_CACHE): parquet has no fast random access.
    """
    kept: list[Path] = []
    tables, starts, layouts, total = [], [], [], 0
    for file in files:
        schema, num_rows = parquet_schema(file)
        if num_rows == 0:
            continue
        layouts.append(recognise(schema.names, str(file)))
        # Without the metadata, in which an Image feature would ask for decoding.
        wanted = pa.schema([schema.field(name) for name in layouts[-1].columns if name in schema.names])
        tables.append(ParquetTable(file, wanted.remove_metadata()))
        kept, starts, total = [*kept, file], [*starts, total], total + num_rows
        if max_pairs is not None and total >= max_pairs:
            break
    if not kept:
        raise UserError(f"{folder if len(files) != 1 else files[0]} holds no rows")
    found = sorted({layout.name for layout in layouts})
    if len(found) > 1:
        raise UserError(f"{folder} mixes files of the schemas {' and '.join(found)}: give one of them")
    return TablePairs(
        tables=tuple(tables),
        layout=layouts[0],
        folder=folder,
        names=tuple(file.relative_to(folder).as_posix() for file in kept),
        starts=tuple(starts),
        files=tuple(kept),
        length=total if max_pairs is None else min(total, max_pairs),
        ties=ties,
    )


def convert(file: Path, schema: pa.Schema) -> "Dataset":
    """The columns of `schema` as memory-mapped Arrow."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    features = datasets.Features()
    for field in schema:
        try:
            features |= datasets.Features.from_arrow_schema(pa.schema([field]))
        except ValueError as error:
            raise UserError(
                f"{file}: the column {field.name} is of type {field.type}; expected text, numbers or bytes"
            ) from error
    try:
        with without_progress_bars():
            table = datasets.Dataset.from_parquet(
                glob.escape(str(file)), columns=schema.names, features=features, batch_size=256
            )
    except (pa.ArrowException, DatasetGenerationError) as error:
        raise UserError(f"{file} could not be read: {error.__cause__ or error}") from error
    return table.with_format("arrow")


def open_saved(folder: Path, ties: Ties, max_pairs: int | None) -> TablePairs:
    """A folder written by `datasets`' save_to_disk: a Dataset, or a DatasetDict of which the train split is taken."""
    import datasets

    _require_whole(folder)
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # of what was damaged, it may raise anything
        raise UserError(f"{folder} is not a complete Hugging Face datasets folder: {error}") from error
    if isinstance(saved, datasets.DatasetDict):
        if "train" not in saved and len(saved) != 1:
            found = ", ".join(str(folder / str(name)) for name in saved)
            raise UserError(f"{folder} has several splits and none is called train: name one of {found}")
        split = "train" if "train" in saved else next(iter(saved))
        return open_saved(folder / str(split), ties, max_pairs)
    layout = recognise(saved.column_names, str(folder))
    known = dict.fromkeys([*layout.columns, *layout.origin_columns])
    table = saved.select_columns([name for name in known if name in saved.column_names]).with_format("arrow")
    if len(table) == 0:
        raise UserError(f"{folder} holds no rows")
    length = len(table) if max_pairs is None else min(len(table), max_pairs)
    files = tuple(file for file in visible(folder, folder.iterdir()) if file.is_file())
    return TablePairs((SavedTable(table),), layout, folder, (folder.name,), (0,), files, length, ties)


SAVED = {"dataset_dict.json": "splits", "state.json": "_data_files", "dataset_info.json": None}


def _require_whole(folder: Path) -> None:
    """Raises UserError for a description that is damaged, and for one that names what lies elsewhere."""
    refuse_pointers(folder.rglob("*.arrow"))
    for name, key in SAVED.items():
        for file in folder.rglob(name):
            parts = read_object(file, [key] if key else []).get(key, [])
            names = [part.get("filename") if isinstance(part, dict) else part for part in _list(parts)]
            if key and not (names and all(isinstance(each, str) and Path(each).name == each for each in names)):
                raise UserError(f"{file}: {key} should name what lies beside it; found {shown(parts)}")


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _sample_digest(path: Path) -> str:
    size = path.stat().st_size
    hasher = hashlib.blake2b(digest_size=16)
    with open_regular(path) as file:
        for start in sorted({0, max(size // 2 - SAMPLE // 2, 0), max(size - SAMPLE, 0)}):
            file.seek(start)
            hasher.update(file.read(SAMPLE))
    return hasher.hexdigest()
