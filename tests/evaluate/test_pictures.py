import base64
import io

import numpy as np
import pytest
from PIL import Image

from sipo.evaluate.pictures import data_uri


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_small_pictures_are_exact(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (np.asarray(decode(data_uri(tmp_path / "a.png")).convert("RGB")) == pixels).all()


def test_large_pictures_become_thumbnails_of_the_same_shape(tmp_path):
    Image.new("RGB", (1024, 512), (200, 30, 30)).save(tmp_path / "a.png")
    thumbnail = decode(data_uri(tmp_path / "a.png"))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (256, 128))
    assert np.abs(np.asarray(thumbnail, dtype=int) - [200, 30, 30]).max() <= 3


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_cannot_be_read_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    assert data_uri(tmp_path / "a.png") is None
