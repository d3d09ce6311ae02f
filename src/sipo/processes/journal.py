"""A file of JSON lines to which all processes add: each to a part of its own, and the first one joins the parts.

NAME                 the lines, in order once all is done; a process that is alone adds to it directly
.NAME.RANK.part      what one of several processes has added; only a killed launch leaves it
"""

import glob
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.jsonl import append_jsonl, dump_jsonl, read_jsonl
from sipo.processes.processes import ALONE, Processes

Lines = dict[str, dict]


@dataclass(frozen=True)
class Journal:
    """One line an item, told apart by the text under `key`. All processes call `begin` and `finish`, in this order.

    A line is on disk when `add` returns. Any number of processes goes on where others were killed.
    """

    path: Path
    processes: Processes = ALONE
    key: str = "file"

    def begin(self, keep: Callable[[dict], bool] = lambda line: True) -> Lines:
        """What earlier calls have left, by key; without lines that `keep` refuses, which the first process asks.

        Raises UserError for a line that is damaged or lacks the key.
        """
        return self._settled(lambda lines: [line for line in lines.values() if keep(line)])

    def add(self, lines: Iterable[Mapping]) -> None:
        """Put them on disk. Raises DiskFull."""
        alone = self.processes.world == 1
        append_jsonl(
            self.path if alone else self.path.with_name(f".{self.path.name}.{self.processes.rank}.part"), lines
        )

    def finish(self, order: Iterable[str]) -> Lines:
        """When all have added: the lines of these keys, in this order, as the file holds them from now on."""
        self.processes.barrier()
        return self._settled(lambda lines: [lines[name] for name in order])

    def lines(self) -> Lines:
        """Those on disk by key, the newest of each."""
        return {name: line for file in (self.path, *self._parts()) for name, line in self._read(file).items()}

    def _settled(self, settle: Callable[[Lines], list[dict]]) -> Lines:
        """The first process puts into the file what `settle` makes of all lines; all read it before anybody goes on."""
        if self.processes.is_main:
            kept, parts = settle(self.lines()), self._parts()
            content = dump_jsonl(kept).encode("utf-8", "backslashreplace")
            if content != (self.path.read_bytes() if self.path.exists() else b""):
                write_atomic(self.path, content)
            for part in parts:
                part.unlink()
        self.processes.barrier()
        found = self._read(self.path)
        self.processes.barrier()
        return found

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"))

    def _read(self, file: Path) -> Lines:
        lines = read_jsonl(file) if file.is_file() else []
        if strange := [line for line in lines if not isinstance(line.get(self.key), str)]:
            raise UserError(
                f"{file}: expected a text under {self.key!r} in every line, found {str(strange[0])[:60]!r}."
            )
        return {line[self.key]: line for line in lines}
