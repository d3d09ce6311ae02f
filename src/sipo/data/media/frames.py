"""A folder of pictures that stands for a video: which of its files are frames, and in what order."""

import re
from pathlib import Path

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2", ".gif"}


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder, frame-2 before frame-10; other files and hidden ones do not count."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")]
    return sorted(files, key=lambda file: (_natural(file.name), file.name))


def _natural(name: str) -> list[str | int]:
    parts = re.split(r"([0-9]+)", name)  # text and numbers in turn, so that equal places compare
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
