"""Git LFS pointers: what lies in place of a large file that was cloned and not pulled."""

import os
from collections.abc import Iterable
from pathlib import Path

from sipo.errors import UserError
from sipo.files import open_regular

BEGINS = b"version https://git-lfs.github.com/spec/"
WHAT = "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned"


def is_pointer(head: bytes) -> bool:
    return head.startswith(BEGINS)


def refuse_pointers(files: Iterable[Path]) -> None:
    """Raises UserError for a file that is a pointer, a pipe or a device; folders, and what cannot be opened, pass."""
    found = []
    for path in files:
        if os.path.isdir(path):
            continue
        try:
            with open_regular(path) as file:
                if is_pointer(file.read(len(BEGINS))):
                    found.append(path)
        except OSError:
            continue
    if found:
        more = f" ({len(found)} such files)" if len(found) > 1 else ""
        raise UserError(f"{found[0]} is {WHAT}{more}")
