"""Which files Python opens, as its own audit events tell, whatever function does it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

HEARD: list[list[Path]] = []  # lists that are being filled


def _hear(event: str, arguments: tuple) -> None:
    if event == "open" and HEARD and isinstance(arguments[0], str | bytes | os.PathLike):
        for heard in HEARD:
            heard.append(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_hear)  # hooks cannot be removed


@contextlib.contextmanager
def opened() -> Iterator[list[Path]]:
    """The paths of all files that this process opens in the context; what torch and safetensors map is not among them."""
    heard: list[Path] = []
    HEARD.append(heard)
    try:
        yield heard
    finally:
        HEARD.remove(heard)


def mapped(folder: Path) -> set[str]:
    """The names of the folder's files that are mapped into this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[5]).name for line in lines if str(folder.resolve()) in line}
