"""Pictures inside a page: as data, small ones exact, large ones as thumbnails."""

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps

THUMBNAIL = 256  # pixels, the longer side of what a page carries
EXACT = 128  # up to here a picture is kept as it is, so that a 64-pixel model is judged by its own pixels


def data_uri(path: Path, longest: int = THUMBNAIL) -> str | None:
    """The picture as an `<img src>`: lossless up to 128 pixels, else a JPEG of at most `longest`. None: unreadable."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all that PIL raises
        return None
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    exact = max(image.size) <= EXACT
    buffer = io.BytesIO()
    if exact:
        image.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    else:
        image.save(buffer, "JPEG", quality=85, optimize=True)
    return f"data:image/{'webp' if exact else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
