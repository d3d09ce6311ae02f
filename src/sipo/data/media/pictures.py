"""Encoded pictures: any supported file becomes an upright RGB picture, or raises `BadRow`."""

import io
import struct
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sipo import lfs
from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import MAX_PICTURE_BYTES, MediaFile, open_media

MAX_PIXELS = 64_000_000  # of one picture; read from its header before anything is decoded
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `open_image` refuses, it does not warn
# No EPS among them: it would run Ghostscript.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")


def read_bytes(media: MediaFile) -> bytes:
    """The encoded file's content. Raises BadRow (empty_image, and as `open_media`)."""
    if isinstance(media, bytes):
        return media
    with open_media(media, MAX_PICTURE_BYTES) as file:
        content = file.read()
    if not content:
        raise BadRow(f"{media} has 0 bytes", "empty_image")
    if lfs.is_pointer(content):
        raise BadRow(f"{media} is {lfs.WHAT}")
    return content


def open_image(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header alone. Raises BadRow (undecodable, too_large)."""
    Image.init()
    try:
        image = Image.open(io.BytesIO(without_texts(content)), formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise BadRow(f"the header says more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels", "too_large") from error
    except Exception as error:  # a decoder that is fed garbage may raise anything
        kind = "truncated" if is_cut_short(content) else "undecodable"
        raise BadRow(f"{len(content):,} bytes from {content[:8]!r} on: not an image that can be read", kind) from error
    width, height = image.size
    if width * height > max_pixels:
        raise BadRow(f"{width} x {height} is {width * height:,} pixels, more than {max_pixels:,}", "too_large")
    return image


PNG = b"\x89PNG\r\n\x1a\n"
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # workflows, parameters, profiles: nothing that changes a pixel
ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # but these two, which may tell how to turn it


def without_texts(content: bytes) -> bytes:
    """A PNG without its texts and colour profile, which Pillow would unpack, and refuse if large; other content as it is."""
    if not content.startswith(PNG):
        return content
    kept, position = [PNG], len(PNG)
    while position + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        if kind not in TEXTS or content.startswith(ORIENTATION, position + 8):
            kept.append(content[position : position + 12 + length])
        position += 12 + length
    return b"".join([*kept, content[position:]])


def load(image: Image.Image, content: bytes) -> Image.Image:
    """Decode all of an opened picture (the first frame, if it moves). Raises BadRow (truncated, undecodable)."""
    try:
        image.load()
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() or is_cut_short(content) else "undecodable"
        raise BadRow(f"{image.format} of {len(content):,} bytes: {error}", kind) from error
    if image.format == "PNG" and is_cut_short(content):  # Pillow is content when the pixels are there
        raise BadRow(f"PNG of {len(content):,} bytes without its last chunk", "truncated")
    return image


def is_cut_short(content: bytes) -> bool:
    """Whether a known container lacks its end."""
    if content[:2] == b"\xff\xd8":
        return b"\xff\xd9" not in content[-64:]
    if content.startswith(PNG):
        return b"IEND\xaeB`\x82" not in content
    if content[:4] == b"RIFF":
        return len(content) < 12 or struct.unpack("<I", content[4:8])[0] + 8 > len(content)
    if content[:4] == b"GIF8":
        return not content.rstrip(b"\0").endswith(b";")
    return False


def probe(media: MediaFile, max_pixels: int = MAX_PIXELS) -> tuple[bytes, Image.Image]:
    """Prove that the picture decodes to its last byte, as cheaply as that can be done.

    Returns the encoded content, and what was decoded: of a JPEG grey, at an eighth of its size.
    """
    content = read_bytes(media)
    image = open_image(content, max_pixels)
    eighth = max(image.width // 8, 1), max(image.height // 8, 1)
    image.draft("L", eighth)  # of a JPEG the whole bit stream is read, but fewer pixels are computed
    load(image, content)
    if image.mode in ("I", "F"):
        to_rgb(image)
    return content, image


def decode(media: MediaFile, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB picture; raises BadRow. Transparency lies on white; embedded colour profiles are not applied."""
    content = read_bytes(media)
    image = load(open_image(content, max_pixels), content)
    try:
        return to_rgb(upright(image))
    except (OSError, ValueError) as error:
        raise BadRow(f"{image.format} of mode {image.mode}: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; a picture whose EXIF block is broken stays as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any mode: grey, palette, alpha (over white), CMYK, 16 bit (the high byte)."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise BadRow(f"pixels of 32 bits (mode {image.mode}) have no known range: save it with 8 or 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB picture."""
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def to_floats(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], of any shape. On the CPU: a GPU divides otherwise, in the last bit."""
    return pixels.float().div_(127.5).sub_(1.0)
