"""Folders that Hugging Face `datasets` saved (`save_to_disk`) as tables of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sipo.data.pairs.rows import Ties
from sipo.data.pairs.schemas import recognise
from sipo.data.pairs.tables import TablePairs
from sipo.errors import UserError, shown
from sipo.files import visible
from sipo.jsonl import read_object
from sipo.lfs import refuse_pointers

if TYPE_CHECKING:
    from datasets import Dataset

SAVED = {"dataset_dict.json": "splits", "state.json": "_data_files", "dataset_info.json": None}


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
