"""Generated videos come back frame by frame; contact sheets show what they should, where they should."""

import io

import av
import numpy as np
import pytest
from PIL import Image
from support import videos

from sipo.data.media.encode_video import contact_sheet, encode_video


def pictures(count: int, size: tuple[int, int] = (32, 24)) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in videos.grey(count, size)]


def decode(content: bytes) -> tuple[av.VideoFrame, ...]:
    with av.open(io.BytesIO(content)) as file:
        return tuple(file.decode(video=0))


@pytest.mark.parametrize("fps", [8, 15.984, 16.0, 23.976])
def test_what_is_written_is_what_a_player_shows(fps: float) -> None:
    frames = decode(encode_video(pictures(12), fps))
    assert [videos.number(np.asarray(frame.to_image()).mean()) for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([i / fps for i in range(12)], abs=1e-3)
    assert (frames[0].format.name, frames[0].width, frames[0].height) == ("yuv420p", 32, 24)


def test_it_is_h264_in_mp4() -> None:
    content = encode_video(pictures(2), 8)
    with av.open(io.BytesIO(content)) as file:
        assert file.streams.video[0].codec_context.name == "h264"
    assert content[4:8] == b"ftyp"


@pytest.mark.parametrize("size", [(33, 24), (32, 25), (1, 1)])
def test_odd_sides_are_extended(size: tuple[int, int]) -> None:
    frame = decode(encode_video(pictures(2, size), 8))[1]
    assert (frame.width, frame.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert np.abs(np.asarray(frame.to_image()).astype(int) - 15).max() <= 2


def test_equal_frames_give_equal_bytes() -> None:
    assert encode_video(pictures(6), 8) == encode_video(pictures(6), 8)


def test_frames_of_several_sizes_are_refused() -> None:
    for frames in ([*pictures(1), *pictures(1, (16, 16))], []):
        with pytest.raises(ValueError, match="one size"):
            encode_video(frames, 8)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (5, 4, 2), (8, 4, 2), (40, 4, 2)])
def test_contact_sheet(count: int, columns: int, rows: int) -> None:
    """Evenly spaced, the first and the last among them, in reading order, two pixels of white between."""
    sheet = contact_sheet(pictures(count))
    assert sheet.size == (columns * 34 - 2, rows * 26 - 2)
    cells = [(x, y) for y in range(rows) for x in range(columns)][: min(count, 8)]
    found = [videos.number(sheet.getpixel((34 * x + 16, 26 * y + 12))[0]) for x, y in cells]
    assert found == [round(i * (count - 1) / max(len(cells) - 1, 1)) for i in range(len(cells))]
    if rows == 2:
        assert sheet.getpixel((16, 24)) == (255, 255, 255)


def test_large_frames_become_small_on_the_sheet() -> None:
    assert contact_sheet(pictures(2, (720, 480))).size == (2 * 256 + 2, 171)
