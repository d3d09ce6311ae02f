"""Real videos for tests, encoded with PyAV: plain grey frames whose level tells their number, or any pictures."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

STEP = 5  # grey levels between neighbouring frames: far more than a codec's error
CODECS = {"mp4": "libx264", "mov": "libx264", "matroska": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}


def grey(count: int, size: tuple[int, int] = (32, 24)) -> list[np.ndarray]:
    """`count` (at most 48) frames of (width, height) `size`; frame i has the level 10 + 5 i."""
    return [np.full((size[1], size[0], 3), 10 + STEP * i, dtype=np.uint8) for i in range(count)]


def number(level: float) -> int:
    """Which frame of `grey` has this level."""
    return round((level - 10) / STEP)


def noise(count: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> list[np.ndarray]:
    """Frames that do not compress: blocks of 8 pixels, each of a random colour."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return list(small.repeat(8, axis=1).repeat(8, axis=2))


def video(
    frames: Sequence[np.ndarray],
    fps: float | Fraction = 8,
    format: str = "mp4",
    codec: str | None = None,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
    **options: str,
) -> bytes:
    """An encoded video. times: the frames' stamps in milliseconds instead of an even rate; options: the codec's."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as out:
        stream = out.add_stream(codec or CODECS[format], rate=Fraction(fps), options={"crf": "12", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        if stream.codec_context.name == "mpeg4":
            stream.bit_rate = 4_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i if times is None else times[i]
            frame.time_base = 1 / Fraction(fps) if times is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def audio() -> bytes:
    """An mp4 with sound and no picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def folder(path: Path, frames: Sequence[np.ndarray], name: str = "frame-{}.png") -> Path:
    path.mkdir(parents=True)
    for i, pixels in enumerate(frames):
        Image.fromarray(pixels).save(path / name.format(i))
    return path
