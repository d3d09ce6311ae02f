"""Parquet shards as tables of pairs, converted to Arrow by Hugging Face `datasets` when a row is read."""

import contextlib
import functools
import glob
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sipo.data.pairs.rows import Ties
from sipo.data.pairs.schemas import recognise
from sipo.data.pairs.tables import TablePairs
from sipo.errors import UserError
from sipo.lfs import refuse_pointers

if TYPE_CHECKING:
    from datasets import Dataset

SPLIT = re.compile(r"(?P<split>.+?)-\d{3,}-of-\d{3,}")  # train-00000-of-00645-b66ac786bf6fb553.parquet
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
