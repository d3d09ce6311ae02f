"""Generated pictures as PNG; videos as an mp4 that every browser plays, and as a contact sheet of a few frames."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from sipo.errors import UserError

ENCODER = "libx264"
QUALITY = "18"  # x264's constant rate factor; 18 is commonly taken as visually lossless
# x264's lookahead reads beyond small frames: with these two, what it finds there does not change the bytes.
LOOKAHEAD = "mbtree=0:weightp=0"
SHEET_FRAMES, COLUMNS = 8, 4
CELL = 256  # pixels, the longer side of a frame on the sheet at most
GAP = 2  # pixels of white between frames


def encode_video(frames: Sequence[Image.Image], fps: float) -> bytes:
    """H.264 in mp4, 4:2:0. Equal frames give equal bytes. An odd side is extended by its last row or column.

    Raises UserError where PyAV comes without the encoder, ValueError without frames or with frames of several sizes.
    """
    if ENCODER not in av.codecs_available:
        raise UserError(
            f"videos are written with {ENCODER}, which this PyAV lacks: `pip install av` brings one that has it"
        )
    pixels = [_even(frame) for frame in frames]
    if len({frame.shape for frame in pixels}) != 1:
        raise ValueError(f"a video needs frames of one size, found {sorted({frame.size for frame in frames})}")
    rate = Fraction(fps).limit_denominator(1001)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream(ENCODER, rate=rate, options={"crf": QUALITY, "x264-params": LOOKAHEAD})
        stream.height, stream.width = pixels[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # several encode the same frames differently
        for number, array in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Up to eight frames, evenly spaced, the first and the last among them; four a row, in reading order."""
    count = min(len(frames), SHEET_FRAMES)
    chosen = [frames[round(i * (len(frames) - 1) / max(count - 1, 1))].convert("RGB") for i in range(count)]
    for frame in chosen:
        frame.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    width, height = chosen[0].size
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), (255, 255, 255))
    for number, frame in enumerate(chosen):
        sheet.paste(frame, (number % columns * (width + GAP), number // columns * (height + GAP)))
    return sheet


def encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _even(frame: Image.Image) -> np.ndarray:
    pixels = np.asarray(frame.convert("RGB"))
    return np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
