"""Cheap fingerprints of large files: names, sizes and samples of the content, never all of it."""

import hashlib
import json
from pathlib import Path
from typing import Any

SAMPLE = 65_536  # bytes at the start, the middle and the end; parquet and Arrow keep their indexes at the end


def digest(value: Any) -> str:
    """128-bit hex digest of anything that JSON can say, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def sample_digest(path: Path) -> str:
    size = path.stat().st_size
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for start in sorted({0, max(size // 2 - SAMPLE // 2, 0), max(size - SAMPLE, 0)}):
            file.seek(start)
            hasher.update(file.read(SAMPLE))
    return hasher.hexdigest()


def content_of(names: list[str], files: list[Path]) -> list:
    return [[name, file.stat().st_size, sample_digest(file)] for name, file in zip(names, files, strict=True)]


def times_of(files: list[Path]) -> list[int]:
    return [file.stat().st_mtime_ns for file in files]
