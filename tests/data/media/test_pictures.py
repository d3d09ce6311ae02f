"""Pictures of every kind come out as the right RGB. Expected values are worked out here, not taken from the code."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from support import videos
from support.pictures import encoded, picture, raw_png

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import media_kind
from sipo.data.media.pictures import decode, probe, to_floats, to_tensor


def pixels(content: bytes) -> np.ndarray:
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def solid(mode: str, color: float | tuple[float, ...] | str, format: str = "PNG", **options) -> bytes:
    return encoded(Image.new(mode, (8, 8), color), format, **options)


def over_white(color: tuple[int, ...], alpha: int) -> np.ndarray:
    return np.array([(value * alpha + 255 * (255 - alpha)) / 255 for value in color])


@pytest.mark.parametrize("alpha", [0, 1, 64, 128, 254, 255])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_lies_on_white(alpha: int, format: str) -> None:
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    found = pixels(solid("RGBA", (200, 100, 50, alpha), format, **options))
    assert np.abs(found - over_white((200, 100, 50), alpha)).max() <= 1


def test_grey_with_alpha() -> None:
    found = pixels(solid("LA", (90, 128)))
    assert np.abs(found - over_white((90, 90, 90), 128)).max() <= 1


def test_plain_grey_and_bilevel() -> None:
    assert (pixels(solid("L", 77)) == 77).all()
    assert (pixels(solid("1", 1)) == 255).all()


def test_palettes() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixels(encoded(palette)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert pixels(encoded(palette, "GIF")).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    half = pixels(encoded(palette, transparency=bytes([128, 255])))[0]  # entry 0 half transparent
    assert np.abs(half[0] - over_white((10, 20, 30), 128)).max() <= 1
    assert half[1].tolist() == [200, 100, 50]
    assert pixels(encoded(palette, "GIF", transparency=1))[0, 1].tolist() == [255, 255, 255]


def test_a_colour_declared_transparent() -> None:
    """PNG's tRNS chunk on RGB and on grey: one exact colour is transparent."""
    rgb = raw_png(2, 1, 8, 2, b"\0" + bytes([1, 2, 3, 4, 5, 6]), b"tRNS" + struct.pack(">HHH", 1, 2, 3))
    assert pixels(rgb).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    grey = raw_png(2, 1, 8, 0, b"\0" + bytes([9, 90]), b"tRNS" + struct.pack(">H", 9))
    assert pixels(grey).tolist() == [[[255] * 3, [90] * 3]]


def test_cmyk() -> None:
    """Naive conversion, R = (1 - C)(1 - K)."""
    assert np.abs(pixels(solid("CMYK", (0, 255, 255, 0), "JPEG", quality=100)) - [255, 0, 0]).max() <= 3
    dark = pixels(solid("CMYK", (51, 0, 102, 128), "TIFF"))
    assert np.abs(dark - np.array([0.8, 1.0, 0.6]) * 127).max() <= 1


def test_sixteen_bits_keep_the_high_byte() -> None:
    values = [0, 255, 256, 0x1234, 0x80FF, 65535]
    grey = raw_png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *values))
    assert pixels(grey)[0, :, 0].tolist() == [value >> 8 for value in values]
    rgb = raw_png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *values))
    assert pixels(rgb).reshape(-1).tolist() == [value >> 8 for value in values]
    tiff = encoded(Image.fromarray(np.array([values], dtype=np.uint16)), "TIFF")
    assert pixels(tiff)[0, :, 2].tolist() == [value >> 8 for value in values]


def test_pixels_of_unknown_range_are_refused() -> None:
    floats = encoded(Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)), "TIFF")
    for judge in (decode, probe):
        with pytest.raises(BadRow, match="32 bits") as caught:
            judge(floats)
        assert caught.value.kind == "undecodable"


UPRIGHT = {  # EXIF 2.3, tag 0x0112: where row 0 and column 0 of the stored picture are; undone by these
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_exif_rotation(orientation: int, format: str) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(Image.fromarray(stored), format, exif=exif, **options)
    assert np.array_equal(pixels(content), UPRIGHT[orientation](stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    content = encoded(Image.new("RGB", (8, 8), (0, 0, 255)), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert np.abs(pixels(content) - [0, 0, 255]).max() <= 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_moving_pictures_the_first_frame(format: str) -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    content = encoded(red, format, save_all=True, append_images=[blue], duration=100)
    assert np.abs(pixels(content).astype(int) - [255, 0, 0]).max() <= 6


# what is refused


@pytest.mark.parametrize(
    ("format", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})]
)
def test_truncation_is_found_wherever_it_happens(format: str, options: dict) -> None:
    whole = picture(1, (64, 48), format, **options)
    probe(whole)
    for length in {20, 100, len(whole) // 4, len(whole) // 2, len(whole) - 30, len(whole) - 2, len(whole) - 1}:
        for judge in (probe, decode):
            with pytest.raises(BadRow) as caught:
                judge(whole[:length])
            assert caught.value.kind == "truncated", f"{length} of {len(whole)} bytes"


@pytest.mark.parametrize(
    "content", [b"x", b"not an image at all" * 10, b"\x89PNG\r\n\x1a\n" + b"\0" * 99 + b"IEND\xaeB`\x82"]
)
def test_garbage_is_undecodable(content: bytes) -> None:
    with pytest.raises(BadRow) as caught:
        probe(content)
    assert caught.value.kind == "undecodable"


def test_formats_that_run_programs_are_not_opened() -> None:
    with pytest.raises(BadRow) as caught:
        decode(encoded(Image.new("RGB", (8, 8)), "EPS"))
    assert caught.value.kind == "undecodable"


@pytest.mark.parametrize("size", [(1001, 1000), (40_000, 40_000), (2**31 - 1, 2**31 - 1)])
def test_the_cap_is_judged_by_the_header(size: tuple[int, int]) -> None:
    """The picture data is garbage: were it decoded, the row would be undecodable instead."""
    bomb = raw_png(*size, 8, 2, b"nothing like that many pixels")
    with pytest.raises(BadRow) as caught:
        probe(bomb, max_pixels=1_000_000)
    assert caught.value.kind == "too_large"
    assert probe(raw_png(2, 1, 8, 0, b"\0\1\2"), max_pixels=2)


# what a medium is


def test_kinds(tmp_path: Path) -> None:
    clip = videos.video(videos.grey(2))
    (tmp_path / "clip").write_bytes(clip)  # no suffix
    (tmp_path / "picture.mp4").write_bytes(b"")
    (tmp_path / "frames.mp4").mkdir()
    gif = encoded(Image.new("L", (8, 8)), "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 99)])
    assert [media_kind(media) for media in (picture(0), gif, b"", clip)] == ["image", "image", "image", "video"]
    assert media_kind(tmp_path / "clip") == "video"
    assert media_kind(tmp_path / "picture.mp4") == media_kind(tmp_path / "gone.webm") == "video"
    assert media_kind(tmp_path / "frames.mp4") == "frames"
    assert media_kind(tmp_path / "gone.png") == media_kind(Path("a\0.png")) == "image"


def test_tensor() -> None:
    image = Image.fromarray(np.array([[[0, 255, 51], [255, 0, 102]]] * 2, dtype=np.uint8))
    tensor = to_tensor(image)
    assert tensor.dtype == torch.uint8
    assert tensor[:, 0].tolist() == [[0, 255], [255, 0], [51, 102]]
    assert torch.allclose(to_floats(tensor)[:, 0], torch.tensor([[-1.0, 1.0], [1.0, -1.0], [-0.6, -0.2]]), atol=1e-6)


def test_floats_are_those_of_numpy_bit_for_bit() -> None:
    """Caches of earlier versions were made of `uint8 / 127.5 - 1` in numpy's float32."""
    values = np.arange(256, dtype=np.uint8)
    expected = values.astype(np.float32) / 127.5 - 1.0
    assert to_floats(torch.from_numpy(values)).numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["text before", "text after", "uncompressed", "international", "profile"])
def test_large_texts_and_profiles_do_not_matter(kind: str) -> None:
    """A workflow, parameters or a colour profile beyond what Pillow unpacks (1 MiB): the pixels are the file's own."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    large, info = "x" * 2_000_000, PngImagePlugin.PngInfo()
    if kind == "profile":
        content = encoded(image, icc_profile=large.encode())
    else:
        (info.add_itxt if kind == "international" else info.add_text)("workflow", large, zip=kind != "uncompressed")
        content = encoded(image, pnginfo=info)
    if kind == "text after":
        body = b"zTXt" + b"workflow\0\0" + zlib.compress(large.encode())
        chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        plain = encoded(image)
        content = plain[:-12] + chunk + plain[-12:]
    assert np.array_equal(pixels(content), np.asarray(image))
    assert probe(content)[0] == content
    with pytest.raises(BadRow) as caught:
        probe(content[:-5])
    assert caught.value.kind == "truncated"


def test_the_orientation_in_a_text_still_counts() -> None:
    """ImageMagick writes EXIF as a text, hexadecimal; Pillow reads it there."""
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    data = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n", zip=True)
    assert pixels(encoded(Image.new("RGB", (8, 4)), pnginfo=info)).shape == (8, 4, 3)
