"""Pictures and videos embedded in a page: small pictures lossless, large ones as thumbnails, videos if small."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from sipo.samples.folder import VIDEO, picture_of

THUMBNAIL = 256  # pixels, the longer side of what a page carries
SHEET = 640  # the longer side of a contact sheet, which holds several frames
EXACT = 128  # up to this size a picture is lossless, so that a 64-pixel model is seen by its own pixels
MAX_VIDEO = 2_000_000  # bytes; a larger video is shown by its contact sheet alone


@dataclass(frozen=True)
class Shown:
    """One sample on a page, as data URIs. `picture`: itself or a contact sheet (None: unreadable); `video`: or None."""

    picture: str | None
    video: str | None = None

    @property
    def num_bytes(self) -> int:
        return len(self.picture or "") + len(self.video or "")


def shown(media: Path, videos: bool = True) -> Shown:
    """A picture, or a video's contact sheet and, where it is small (and `videos`), the video itself."""
    if media.suffix != VIDEO:
        return Shown(data_uri(media))
    return Shown(data_uri(picture_of(media), SHEET), _video_uri(media) if videos else None)


def _video_uri(path: Path) -> str | None:
    try:
        content = path.read_bytes() if path.stat().st_size < MAX_VIDEO else b""
    except OSError:
        return None
    return f"data:video/mp4;base64,{base64.b64encode(content).decode()}" if content else None


def data_uri(path: Path, longest: int = THUMBNAIL) -> str | None:
    """The picture as an `<img src>`: lossless up to 128 pixels, else a JPEG of at most `longest`. None: unreadable."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # everything that PIL raises
        return None
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    exact = max(image.size) <= EXACT
    buffer = io.BytesIO()
    if exact:
        image.save(buffer, "WEBP", lossless=True, quality=60, method=4)
    else:
        image.save(buffer, "JPEG", quality=85, optimize=True)
    return f"data:image/{'webp' if exact else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"
