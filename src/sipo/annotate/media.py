"""What is shown, encoded alike: one format, size, rate, length and number of bytes for all systems of a prompt.

So nothing but the pixels tells who made it. Metadata is dropped; a file is padded to the length of its longest sibling.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image

from sipo.data.bad_rows import BadRow
from sipo.data.media.decode_video import Length, measure, read_frames, select_frames
from sipo.data.media.encode_video import encode_png, encode_video
from sipo.data.media.kinds import media_kind
from sipo.data.media.pictures import decode
from sipo.size import Size

BLOCK = 4096  # bytes; every file is a multiple
SPOILT = 12  # how many times fewer pixels a side the spoilt result of a check item has


@dataclass(frozen=True)
class Shape:
    """A decoded file: its size in pixels, and the length of a video (None: an image)."""

    width: int
    height: int
    length: Length | None = None

    @property
    def fps(self) -> Fraction:
        assert self.length is not None
        return self.length.num_frames / self.length.seconds


@dataclass(frozen=True)
class Target:
    """What the results of one prompt become: pixels, and frames and rate of videos."""

    width: int
    height: int
    num_frames: int = 1
    fps: float | None = None


def shape_of(path: Path) -> Shape:
    """Decode to the end. Raises BadRow where that fails."""
    if media_kind(path) == "image":
        return Shape(*decode(path).size)
    length = measure(path)
    first = next(iter(read_frames(path))).picture()
    return Shape(*first.size, length)


def common_target(shapes: Sequence[Shape], fps: float | None = None, max_side: int = 1536) -> Target:
    """The smallest width and height among them, which nobody has to enlarge, at most `max_side`, even for videos.

    Videos get the rate `fps` and the shortest one's length.
    """
    width, height = min(shape.width for shape in shapes), min(shape.height for shape in shapes)
    scale = min(1.0, max_side / max(width, height))
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    if fps is None:
        return Target(width, height)
    seconds = min(shape.length.seconds for shape in shapes if shape.length)
    frames = max(int(seconds * Fraction(fps).limit_denominator(1001) + Fraction(1, 2)), 1)
    return Target(width + width % 2, height + height % 2, frames, fps)


def encode(path: Path, target: Target, spoil: bool = False) -> bytes:
    """The file as PNG, or MP4 (H.264). Another aspect ratio is fitted in, on grey. Raises BadRow.

    spoil: so coarse that anybody who looks prefers the original.
    """
    if target.fps is None:
        return encode_png(_fit(decode(path), target, spoil))
    size = Size(target.width, target.height, target.num_frames, target.fps)
    frames, before, shown = [], None, None
    for frame in select_frames(read_frames(path, target.fps), size):
        if frame is not before:
            shown, before = _fit(frame.picture(), target, spoil), frame
        assert shown is not None
        frames.append(shown)
    return encode_video(frames, target.fps)


def padded(contents: Sequence[bytes]) -> list[bytes]:
    """The same PNGs or MP4s, each as many bytes as the longest needs: a chunk or box that decoders skip."""
    size = -(-(max(map(len, contents)) + 12) // BLOCK) * BLOCK
    return [_pad(content, size - len(content)) for content in contents]


def _pad(content: bytes, count: int) -> bytes:
    """`count` (at least 12) bytes more."""
    if content.startswith(b"\x89PNG"):
        body = b"paDd" + bytes(count - 12)
        chunk = struct.pack(">I", count - 12) + body + struct.pack(">I", zlib.crc32(body))
        return content[:-12] + chunk + content[-12:]  # before IEND
    return content + struct.pack(">I", count) + b"free" + bytes(count - 8)


def _fit(image: Image.Image, target: Target, spoil: bool) -> Image.Image:
    """A new RGB picture of the target's size, without the metadata of the old one."""
    scale = min(target.width / image.width, target.height / image.height)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    fitted = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
    if spoil:
        fitted = fitted.reduce(min(SPOILT, *size)).resize(size, Image.Resampling.BILINEAR)
    clean = Image.new("RGB", (target.width, target.height), (128, 128, 128))
    clean.paste(fitted, ((target.width - size[0]) // 2, (target.height - size[1]) // 2))
    return clean


def kind_of(path: Path) -> str:
    """ "image" or "video" (a folder of frames is one). Raises BadRow for a missing file."""
    if not path.exists():
        raise BadRow(f"{path} does not exist", "missing_file")
    return "image" if media_kind(path) == "image" else "video"
