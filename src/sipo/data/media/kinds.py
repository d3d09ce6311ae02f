"""What an image or a video is before it is decoded: bytes, a file or a folder of frames, and which of the two."""

import os
from pathlib import Path
from typing import BinaryIO, Literal, TypeGuard

from sipo.data.bad_rows import BadRow
from sipo.data.media.containers import HEAD, container, foreign
from sipo.errors import UserError
from sipo.files import natural_order, open_regular, visible
from sipo.size import Size

MediaFile = bytes | Path  # an encoded file's content, or its path; a folder is a video, each picture in it a frame
Kind = Literal["image", "video", "frames"]
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2", ".gif"}
MAX_PICTURE_BYTES, MAX_VIDEO_BYTES = 2**30, 2**34  # of one encoded file
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


def media_kind(media: MediaFile) -> Kind:
    """ "frames" (a folder), else by the first bytes, else (where these are inconclusive) by the suffix."""
    if is_folder(media):
        return "frames"
    head = media_head(media)
    named_video = isinstance(media, Path) and media.suffix.lower() in VIDEO_SUFFIXES
    is_gif = head.startswith(b"GIF8") and not named_video  # most show a picture
    return "video" if container(head) or named_video or (foreign(head) and not is_gif) else "image"


def require_kind(media: MediaFile, size: Size | None) -> Kind:
    """Its kind. Raises BadRow where a model of that size cannot take it; a picture may be a video of one frame."""
    kind = media_kind(media)
    if size and kind != "image" and not size.is_video:
        raise BadRow(f"{describe(media)} is a video; the model makes images", "mismatched")
    if size and kind == "image" and size.num_frames > 1:
        what = "a GIF, which is read as one image" if media_head(media).startswith(b"GIF8") else "an image"
        raise BadRow(f"{describe(media)} is {what}; the model makes videos of {size.num_frames} frames", "too_short")
    return kind


def is_folder(media: MediaFile) -> TypeGuard[Path]:
    """Whether it is a folder of frames; a name that no file can have is none."""
    return isinstance(media, Path) and os.path.isdir(media)


def open_media(path: Path, most: int) -> BinaryIO:
    """The file for reading. Raises BadRow: missing_file, too_large (more than `most` bytes), undecodable (a pipe, a
    device, a folder)."""
    try:
        return open_regular(path, most)
    except OSError as error:
        raise BadRow(f"{path}: {error.strerror}", "missing_file") from error
    except UserError as error:
        kind = "too_large" if os.path.isfile(path) else "undecodable" if os.path.exists(path) else "missing_file"
        raise BadRow(str(error), kind) from error


def describe(media: MediaFile) -> str:
    """For messages."""
    return f"the file of {len(media):,} bytes" if isinstance(media, bytes) else str(media)


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder, frame-2 before frame-10; other files and hidden ones are ignored."""
    files = visible(folder, folder.iterdir())
    return sorted(
        (file for file in files if file.suffix.lower() in PICTURE_SUFFIXES), key=lambda file: natural_order(file.name)
    )


def media_head(media: MediaFile) -> bytes:
    """The first bytes; none of a file that cannot be opened."""
    if isinstance(media, bytes):
        return media[:HEAD]
    try:
        with open_regular(media) as file:
            return file.read(HEAD)
    except (OSError, UserError):
        return b""
