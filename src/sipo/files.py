"""Files: written whole or not at all, whenever the process dies; hashed; and sorted as people sort their names."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def hash_file(path: Path) -> str:
    """SHA-256 of the content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(files: Iterable[Path], with_names: bool = False) -> str:
    """SHA-256, in hexadecimal, of the files' own SHA-256 digests in the given order, each after its name on request."""
    joint = hashlib.sha256()
    for file in files:
        joint.update((file.name.encode() if with_names else b"") + bytes.fromhex(hash_file(file)))
    return joint.hexdigest()


def digest(value: Any) -> str:
    """128 bits, in hexadecimal, of anything that JSON can represent; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts frame-2 before frame-10."""
    parts = re.split(r"([0-9]+)", name)  # text and numbers in turn, so that equal places compare
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def visible(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Those of the files below `folder` that no program hid there (`._a.parquet`, `.ipynb_checkpoints/`), sorted."""
    left_behind = ("__MACOSX", "@eaDir", "Thumbs.db")
    return sorted(
        file
        for file in files
        if not any(part.startswith(".") or part in left_behind for part in file.relative_to(folder).parts)
    )


def sync_directory(path: Path) -> None:
    """Make a rename inside `path` durable. A no-op where directories cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` (str as UTF-8) under a temporary name in the same folder, sync it, then rename it to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
