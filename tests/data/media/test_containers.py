"""Containers are told by their first bytes, from the formats' specifications; their ends by their own structure."""

import io

import pytest
from PIL import Image
from support import videos
from support.pictures import encoded, picture

from sipo.data.media.containers import HEAD, container, foreign, is_cut_short


@pytest.mark.parametrize(
    ("format", "name"), [("mp4", "mov"), ("mov", "mov"), ("matroska", "matroska"), ("webm", "matroska"), ("avi", "avi")]
)
def test_videos(format: str, name: str) -> None:
    content = videos.video(videos.grey(5), 8, format)
    assert container(content[:HEAD]) == name
    assert not is_cut_short(io.BytesIO(content), name)
    assert all(is_cut_short(io.BytesIO(content[:-cut]), name) for cut in (1, 7, 100, len(content) // 2))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_pictures_are_none(format: str) -> None:
    assert container(picture(0, format=format)[:HEAD]) is None


def test_moving_pictures_stay_pictures() -> None:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 99, 200)]
    for format in ("GIF", "WEBP", "PNG"):
        assert container(encoded(frames[0], format, save_all=True, append_images=frames[1:])[:HEAD]) is None


@pytest.mark.parametrize("brand", [b"avif", b"avis", b"heic", b"mif1"])
def test_pictures_in_the_container_of_mp4_are_none(brand: bytes) -> None:
    assert container(b"\0\0\0\x20ftyp" + brand + b"\0\0\0\0") is None


def test_a_quicktime_file_may_lack_its_first_box() -> None:
    content = videos.video(videos.grey(3))
    boxes = content[int.from_bytes(content[:4]) :]
    assert container(boxes[:HEAD]) == "mov"


@pytest.mark.parametrize(
    "head", [b"", b"\0", b"ftyp", b"#EXTM3U\n" + b"x" * 8, b"RIFF\0\0\0\0WAVE", b"ffconcat version"]
)
def test_anything_else_is_none(head: bytes) -> None:
    assert container(head) is None


def test_what_follows_the_last_box_does_not_matter() -> None:
    assert not is_cut_short(io.BytesIO(videos.video(videos.grey(3)) + bytes(512)), "mov")


def test_a_size_that_nobody_knows_is_no_cut() -> None:
    """Live streams in Matroska leave the size of their segment open: all bits set."""
    content = bytearray(videos.video(videos.grey(3), 8, "matroska"))
    size = content.index(b"\x18\x53\x80\x67") + 4
    content[size : size + 8] = b"\x01" + b"\xff" * 7
    assert not is_cut_short(io.BytesIO(bytes(content[:-50])), "matroska")


def test_bytes_after_the_last_box_are_no_cut() -> None:
    """Phones and editors append trailers of their own; a cut of what stands before them is still seen."""
    content = videos.video(videos.grey(3))
    for trailer in (b"SEFT trailer of a phone", b"\xff" * 100, b"x", bytes(3), b"\0\0\0\x99abcd"):
        assert not is_cut_short(io.BytesIO(content + trailer), "mov")
        assert is_cut_short(io.BytesIO(content[:-9]), "mov")


@pytest.mark.parametrize(
    ("format", "codec", "name"),
    [
        ("mpegts", "libx264", "transport stream"),
        ("flv", "libx264", "Flash"),
        ("asf", "wmv2", "Windows Media"),
        ("mpeg", "mpeg2video", "program stream"),
        ("mpeg1video", "mpeg1video", "MPEG-1"),
    ],
)
def test_other_videos_are_named(format: str, codec: str, name: str) -> None:
    content = videos.video(videos.grey(5, (64, 48)), 25, format, codec)
    assert name in (foreign(content[:HEAD]) or "")
    assert container(content[:HEAD]) is None


def test_pictures_and_read_videos_are_not_foreign() -> None:
    for content in (picture(0), picture(0, format="JPEG"), videos.video(videos.grey(2)), b"", b"G", b"Good morning"):
        assert foreign(content[:HEAD]) is None
    assert foreign(picture(0, format="GIF")[:HEAD]) == "a GIF"
