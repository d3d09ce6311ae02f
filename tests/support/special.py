"""What may lie in place of a file: pipes, devices, sockets, folders, and files that are larger than any memory."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

HUGE = 40 * 2**30  # bytes that take no room: a hole


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    short = Path(tempfile.mkdtemp()) / "s"  # the address of a socket has about a hundred bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(short))
    shutil.move(short, path)
    short.parent.rmdir()


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": _device,
    "socket": _socket,
    "folder": Path.mkdir,
    "sparse": _sparse,
}
"""By what it is called, puts it at a path."""
