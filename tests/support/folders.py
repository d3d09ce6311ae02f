"""Folders as values, to be compared."""

from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below it, by its path in it."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
