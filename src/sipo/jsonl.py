"""JSON files, and files of JSON lines, which a killed process may leave with half a last line."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sipo.errors import UserError, shown
from sipo.files import MOST_LINES, append, open_regular, read_regular, write_atomic


def read_json(path: Path, advice: str = "") -> Any:
    """The value in the file, None without the file. Raises `UserError`, ending with `advice`, if it is not JSON."""
    try:
        return json.loads(read_regular(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). {advice}".rstrip()) from error


def read_object(path: Path, keys: Collection[str] = (), advice: str = "") -> dict[str, Any]:
    """The object in the file, which has those keys at least. Raises `UserError`, ending with `advice`."""
    found = read_json(path, advice)
    if not isinstance(found, dict):
        what = "there is no such file" if found is None and not path.exists() else f"found {shown(found, 60)}"
        raise UserError(f"{path} should hold a JSON object: {what}. {advice}".rstrip())
    if lacking := [key for key in keys if key not in found]:
        raise UserError(f"{path} lacks {', '.join(lacking)}. {advice}".rstrip())
    return found


def read_jsonl(path: Path) -> list[dict]:
    """The records of `path` in order; a last line without its newline was cut off by a kill and is ignored.

    Raises `UserError` with file and line number where any other line is not a JSON object.
    """
    return [record for _, record in iter_jsonl(path)]


def iter_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """As `read_jsonl`, one at a time, each with the place in the file where its line ends."""
    end = 0
    with open_regular(path, MOST_LINES) as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                end += len(line)
                yield end, parse_line(line, f"{path}, line {number}")


def parse_line(line: bytes, where: str) -> dict:
    """Raises `UserError` where it is not a JSON object."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}).") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object in braces, found {shown(line[:60].rstrip())}.")
    return record


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, so that the next append starts a new line. Does nothing without the file."""
    if path.exists() and not (content := read_regular(path)).endswith(b"\n"):
        write_atomic(path, content[: content.rfind(b"\n") + 1])


def append_jsonl(path: Path, records: Iterable[Mapping]) -> None:
    """Add one line a record and sync: after the return, a kill cannot take them back."""
    append(path, dump_jsonl(records).encode("utf-8", "backslashreplace"))


def dump_jsonl(records: Iterable[Mapping]) -> str:
    """One compact line a record, non-ASCII text kept readable."""
    return "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)
