"""Videos, decoded frame by frame through PyAV, or read from a folder of pictures; and which frames a model sees."""

import contextlib
import io
import os
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import Disposition
from PIL import Image

from sipo import lfs
from sipo.data.bad_rows import BadRow
from sipo.data.media.containers import HEAD, container, foreign, is_cut_short
from sipo.data.media.kinds import MAX_VIDEO_BYTES, MediaFile, describe, frame_files, is_folder, open_media
from sipo.data.media.pictures import MAX_PIXELS, decode
from sipo.size import Size

MAX_FRAMES = 20_000  # of one video; more are not decoded
SLACK = Fraction(1, 1000)  # seconds; Matroska rounds times to milliseconds
# The display matrix (a, b, u, c, d, v, x, y, w) shows the stored point (p, q) at (a p + c q, b p + d q).
UPRIGHT: dict[tuple[int, ...], Image.Transpose] = {  # by the signs of a, b, c, d; the smaller ones count as 0
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class Frame:
    """One frame, shown from `time` to `end` (seconds after the first). `picture` gives it upright, RGB, full size."""

    time: Fraction
    end: Fraction
    picture: Callable[[], Image.Image]

    def shown_at(self, moment: Fraction) -> bool:
        """Whether a video of which this is the last frame still shows something then."""
        return moment <= self.time + SLACK or moment < self.end - SLACK


@dataclass(frozen=True)
class Length:
    """How long a video is. For a folder whose rate nobody said, the unit is the frame (and not `timed`)."""

    num_frames: int
    seconds: Fraction  # to the end of the last frame
    timed: bool

    def differs(self, other: "Length") -> bool:
        """By more than one frame interval (the longer of the two). A folder without a rate is as long as any video."""
        interval = max(self.seconds / self.num_frames, other.seconds / other.num_frames)
        return self.timed == other.timed and abs(self.seconds - other.seconds) > interval + SLACK

    def __str__(self) -> str:
        return f"{float(self.seconds):.2f} s ({self.num_frames} frames)" if self.timed else f"{self.num_frames} frames"


def read_frames(
    media: MediaFile, fps: float | None = None, max_pixels: int = MAX_PIXELS
) -> Generator[Frame, None, None]:
    """The frames of a video, or of a folder of pictures, which are taken to be `fps` to the second; all of one size.

    Frames are decoded lazily. Raises BadRow: missing_file, empty_image, truncated, undecodable,
    too_large (pixels by the header, before anything is decoded; frames when `MAX_FRAMES` are passed), malformed.
    """
    if is_folder(media):
        return _read_folder(media, Fraction(fps or 1), max_pixels)
    return _read_video(media, max_pixels)


def select_frames(frames: Iterable[Frame], size: Size) -> Iterator[Frame]:
    """Frame i is the one shown at i / fps; `size.num_frames` of them. A slower video repeats frames.

    Reads one frame more than it needs and no further. Raises BadRow (too_short).
    """
    moments = [i / Fraction(size.fps or 1) for i in range(size.num_frames)]
    shown, given, seen = None, 0, 0
    for frame in frames:
        while shown is not None and given < len(moments) and moments[given] < frame.time - SLACK:
            yield shown
            given += 1
        if given == len(moments):
            return
        shown, seen = frame, seen + 1
    while shown is not None and given < len(moments) and shown.shown_at(moments[given]):
        yield shown
        given += 1
    if given < len(moments):
        raise too_short(shown, seen, size)


def measure(media: MediaFile, size: Size | None = None, max_pixels: int = MAX_PIXELS) -> Length:
    """Decode to the end. Raises what `read_frames` raises, and too_short where `size` asks for more."""
    fps = size.fps if size else None
    last, seen = None, 0
    for frame in read_frames(media, fps, max_pixels):
        last, seen = frame, seen + 1
    if last is None:
        raise BadRow(f"{describe(media)} holds no frame", "undecodable")
    if size and not last.shown_at((size.num_frames - 1) / Fraction(fps or 1)):
        raise too_short(last, seen, size)
    timed = fps is not None or not is_folder(media)
    return Length(seen, max(last.end, Fraction(1, 1000)), timed)


def too_short(last: Frame | None, seen: int, size: Size) -> BadRow:
    found = f"lasts {float(last.end):.2f} s ({seen} frames)" if last else "holds no frame"
    return BadRow(
        f"{found}; {size.num_frames} frames at {size.fps:g} fps are needed, the last one shown at "
        f"{size.seconds:.2f} s. Ask for fewer frames or a higher rate, or leave it out",
        "too_short",
    )


def _read_folder(folder: Path, fps: Fraction, max_pixels: int) -> Generator[Frame, None, None]:
    files = frame_files(folder)
    if not files:
        raise BadRow(f"the folder {folder} holds no pictures", "empty_image")
    if len(files) > MAX_FRAMES:
        raise BadRow(f"{folder} holds {len(files):,} pictures, more than {MAX_FRAMES:,}", "too_large")
    first: tuple[int, int] | None = None
    for number, file in enumerate(files):
        try:
            image = decode(file, max_pixels)
        except BadRow as error:
            raise BadRow(f"{folder.name}/{file.name}: {error}", error.kind) from error
        first = first or image.size
        _require_size(file, number, image.size, first)
        yield Frame(number / fps, (number + 1) / fps, lambda image=image: image)


def _read_video(media: MediaFile, max_pixels: int) -> Generator[Frame, None, None]:
    """One thread a decoder: many are at work at the same time. "explode": damage is an error, it is not painted over."""
    with _binary(media) as file, _judged(media), _container(file, media, max_pixels) as opened:
        covers = [bool(found.disposition & Disposition.attached_pic) for found in opened.streams.video]
        if all(covers):
            cover = ", only a cover picture" if covers else ""
            raise BadRow(f"{describe(media)} holds no video stream{cover}", "undecodable")
        stream = opened.streams.video[covers.index(False)]
        context = stream.codec_context
        first = context.width, context.height
        _require_pixels(media, first, max_pixels)
        context.thread_count = 1
        context.options = {"err_detect": "explode", "max_pixels": _ceiling(max_pixels)}
        rate = stream.average_rate or stream.guessed_rate
        interval = 1 / rate if rate else Fraction(0)
        stamped = container(_head(file)) != "avi"  # whose stamps are not those of showing
        start, previous = None, None
        for number, frame in enumerate(opened.decode(stream)):
            if number == MAX_FRAMES:
                raise BadRow(f"{describe(media)} has more than {MAX_FRAMES:,} frames", "too_large")
            size = frame.width, frame.height
            first = size if number == 0 else first
            _require_pixels(media, size, max_pixels)
            _require_size(media, number, size, first)
            lasts, time = interval, previous.end if previous else Fraction(0)
            if stamped and frame.pts is not None and frame.time_base is not None:
                stamp = frame.pts * frame.time_base
                start = stamp if start is None else start
                time = max(stamp - start, previous.time if previous else Fraction(0))
                lasts = frame.duration * frame.time_base if frame.duration else interval
            previous = Frame(time, time + lasts, lambda frame=frame: _upright(frame, media))
            yield previous


def _upright(frame: "av.VideoFrame", media: MediaFile) -> Image.Image:
    """RGB, turned and mirrored as the display matrix says.

    By one thread: a forked worker would wait for ever for those that a frame of the parent's still holds.
    """
    with _judged(media):
        image = frame.to_image(threads=1)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        how = UPRIGHT.get(_signs(bytes(matrix))) if matrix else None
        return image.transpose(how) if how is not None else image


def _signs(matrix: bytes) -> tuple[int, ...]:
    """Of a, b, c, d, each row's smaller one as 0: a turn by any angle becomes one by the nearest quarter."""
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    straight = abs(a) >= abs(b)
    kept = (a, 0, 0, d) if straight else (0, b, c, 0)
    return tuple((value > 0) - (value < 0) for value in kept)


@contextlib.contextmanager
def _binary(media: MediaFile) -> Iterator[BinaryIO]:
    """The encoded video as an open file: FFmpeg is never given a name, which it might take for an address."""
    if isinstance(media, bytes):
        yield io.BytesIO(media)
        return
    with open_media(media, MAX_VIDEO_BYTES) as file:
        yield file


@contextlib.contextmanager
def _judged(media: MediaFile) -> Iterator[None]:
    try:
        yield
    except BadRow:
        raise
    except Exception as error:  # a decoder that is fed garbage may raise anything
        what = getattr(error, "strerror", None) or error
        raise BadRow(f"{describe(media)} cannot be decoded: {what}", "undecodable") from error


def _container(file: BinaryIO, media: MediaFile, max_pixels: int) -> InputContainer:
    """Opened as what its first bytes say and nothing else: some formats (playlists) would open other files."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise BadRow(f"{describe(media)} has 0 bytes", "empty_image")
    head = _head(file)
    kind = container(head)
    if kind is None:
        what = lfs.WHAT if lfs.is_pointer(head) else foreign(head) or f"a file that begins with {head[:8]!r}"
        raise BadRow(
            f"{describe(media)} is {what}; mp4, mov, mkv, webm and avi are read. `ffmpeg -i IN OUT.mp4` converts",
            "undecodable",
        )
    if is_cut_short(file, kind):
        raise BadRow(f"{describe(media)} ({size:,} bytes) ends before its video does", "truncated")
    return av.open(file, mode="r", format=kind, options={"max_pixels": _ceiling(max_pixels)})


def _head(file: BinaryIO) -> bytes:
    """The first bytes; the file stays where it is."""
    position = file.tell()
    file.seek(0)
    head = file.read(HEAD)
    file.seek(position)
    return head


def _ceiling(max_pixels: int) -> str:
    """For FFmpeg itself, should frames grow on the way; it counts padded ones."""
    return str(4 * max_pixels + 2**16)


def _require_pixels(media: MediaFile, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        detail = f"{width} x {height} is {width * height:,} pixels a frame, more than {max_pixels:,}"
        raise BadRow(f"{describe(media)}: {detail}", "too_large")


def _require_size(media: MediaFile, number: int, size: tuple[int, int], first: tuple[int, int]) -> None:
    if size != first:
        found, expected = (f"{width} x {height}" for width, height in (size, first))
        raise BadRow(f"{describe(media)}: frame {number} is {found}, the first one {expected}", "malformed")
