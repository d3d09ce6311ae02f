import base64
import io

import numpy as np
import pytest
from PIL import Image

from sipo.evaluate.pages import gallery
from sipo.evaluate.pages.gallery import Shown, data_uri, shown
from sipo.samples.folder import PromptItem, read_samples
from sipo.samples.generate import generate


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


@pytest.fixture
def clip(tmp_path):
    """A generated video of twenty frames, 64 x 48."""
    frames = [Image.new("RGB", (64, 48), (10 * i, 0, 0)) for i in range(20)]
    out = generate(lambda prompts, seeds: [frames], [PromptItem("p", 0)], tmp_path / "videos", {"fps": 8})
    return out / read_samples(out)[0].file


def test_a_video_is_shown_by_its_sheet_and_itself(clip):
    found = shown(clip)
    assert decode(found.picture).size == (4 * 64 + 6, 2 * 48 + 2)
    kind, content = found.video.split(";base64,")
    assert kind == "data:video/mp4"
    assert base64.b64decode(content) == clip.read_bytes()
    assert found.num_bytes == len(found.picture) + len(found.video)


def test_of_a_large_video_the_sheet_alone(clip, monkeypatch):
    assert shown(clip, videos=False).video is None
    monkeypatch.setattr(gallery, "MAX_VIDEO", clip.stat().st_size - 1)
    assert shown(clip).video is None
    assert shown(clip).picture is not None


def test_a_video_that_is_gone(clip):
    clip.unlink()
    assert shown(clip).video is None
    clip.with_suffix(".png").unlink()
    assert shown(clip) == Shown(None, None)


def test_a_video_of_another_container_is_shown_by_its_sheet(clip):
    other = clip.rename(clip.with_suffix(".MOV"))
    assert shown(other).picture is not None
    assert shown(other).video is None


def test_a_picture_has_no_video(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert shown(tmp_path / "a.png") == Shown(data_uri(tmp_path / "a.png"))
