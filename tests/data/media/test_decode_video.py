"""Which frames a model sees, worked out here from the stamps; and that anything but a sound video is refused."""

import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image
from support import videos

from sipo.data.bad_rows import BadRow
from sipo.data.media import decode_video as video_module
from sipo.data.media.decode_video import Length, measure, read_frames, select_frames
from sipo.data.media.kinds import MediaFile, require_kind
from sipo.size import Size

FORMATS = ["mp4", "mov", "matroska", "webm", "avi"]


def numbers(media: MediaFile, num_frames: int, fps: float) -> list[int]:
    size = Size(8, 8, num_frames, fps)
    return [videos.number(np.asarray(frame.picture()).mean()) for frame in select_frames(read_frames(media, fps), size)]


def shown(times: list[Fraction], moment: Fraction) -> int:
    """The independent computation: the last frame that has begun, give or take the millisecond of rounding."""
    return max(i for i, time in enumerate(times) if time <= moment + Fraction(1, 1000))


def kind_of(media: MediaFile, **options) -> str:
    with pytest.raises(BadRow) as caught:
        measure(media, **options)
    return caught.value.kind


def test_no_thread_outlives_a_picture() -> None:
    """A loader's worker, forked later, would wait for ever when it frees a frame whose threads it has not got."""

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    content, before, kept = videos.video(videos.grey(4), 8, "mp4"), threads(), []
    for frame in read_frames(content, 8):
        kept.append((frame, frame.picture()))
        assert threads() == before
    assert len(kept) == 4


# which frames


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("source", "fps", "count"), [(24, 8, 11), (8, 8, 33), (30, 8, 9), (8, 16, 60), (24, 10, 12)])
def test_frame_i_is_the_one_shown_at_i_over_fps(format: str, source: int, fps: int, count: int) -> None:
    content = videos.video(videos.grey(34), source, format)
    times = [Fraction(i, source) for i in range(34)]
    assert numbers(content, count, fps) == [shown(times, Fraction(i, fps)) for i in range(count)]


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), 16, 7.5])
def test_rates_that_are_no_whole_numbers(fps: float) -> None:
    content = videos.video(videos.grey(40), Fraction(24000, 1001))
    times = [i * Fraction(1001, 24000) for i in range(40)]
    assert numbers(content, 12, float(fps)) == [shown(times, Fraction(i) / Fraction(fps)) for i in range(12)]


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_frames_of_uneven_length(format: str) -> None:
    stamps = [0, 40, 400, 410, 420, 1000, 1300]
    content = videos.video(videos.grey(7), 25, format, times=stamps)
    times = [Fraction(stamp, 1000) for stamp in stamps]
    assert numbers(content, 14, 10) == [shown(times, Fraction(i, 10)) for i in range(14)]


@pytest.mark.parametrize("format", ["mp4", "avi"])
def test_frames_that_are_stored_in_another_order(format: str) -> None:
    content = videos.video(videos.grey(20), 8, format, codec="libx264", bf="3", b_adapt="0")
    assert numbers(content, 20, 8) == list(range(20))


def test_no_more_is_decoded_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    frames = read_frames(videos.video(videos.grey(40), 24))

    def counted():
        for frame in frames:
            decoded.append(frame)
            yield frame

    assert len(list(select_frames(counted(), Size(8, 8, 3, 8.0)))) == 3  # the last one at 1/4 s: frame 6
    assert len(decoded) == 8


def test_a_folder_has_the_models_rate(tmp_path: Path) -> None:
    frames = videos.folder(tmp_path / "clip", videos.grey(12))  # frame-10 after frame-9, not after frame-1
    (frames / "notes.txt").write_text("not a frame")
    (frames / ".hidden.png").write_text("not a frame")
    assert numbers(frames, 12, 8) == numbers(frames, 12, 24) == list(range(12))


@pytest.mark.parametrize(("count", "fps", "enough"), [(8, 8, True), (9, 8, False), (16, 16, True), (17, 16, False)])
@pytest.mark.parametrize("format", FORMATS)
def test_too_short(format: str, count: int, fps: int, enough: bool) -> None:
    """Eight frames at 8 to the second are shown for one second."""
    content = videos.video(videos.grey(8), 8, format)
    size = Size(8, 8, count, float(fps))
    if enough:
        assert len(numbers(content, count, fps)) == count
        assert measure(content, size).num_frames == 8
        return
    for judge in (lambda: list(select_frames(read_frames(content), size)), lambda: measure(content, size)):
        with pytest.raises(BadRow, match=rf"lasts 1\.00 s \(8 frames\); {count} frames at {fps} fps") as caught:
            judge()
        assert caught.value.kind == "too_short"


def test_a_folder_that_is_too_short(tmp_path: Path) -> None:
    frames = videos.folder(tmp_path / "clip", videos.grey(4))
    assert kind_of(frames, size=Size(8, 8, 5, 8.0)) == "too_short"
    assert measure(frames, Size(8, 8, 4, 8.0)) == Length(4, Fraction(1, 2), True)


def test_one_frame_is_a_video_too() -> None:
    assert numbers(videos.video(videos.grey(1), 8), 1, 8) == [0]


# pixels


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_rotation(rotation: int, turns: int) -> None:
    """Degrees are counterclockwise, as FFmpeg defines its display matrix; numpy's rot90 turns that way too."""
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :24], stored[16:, 24:] = 255, 120
    frame = next(read_frames(videos.video([stored], rotation=rotation)))
    found = np.asarray(frame.picture()).astype(int)
    assert found.shape == np.rot90(stored, turns).shape
    assert np.abs(found - np.rot90(stored, turns)).mean() < 4


MATRICES = {  # (a, b, c, d) -> what it makes of a picture, as numpy does it
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_turn_and_mirror(matrix: tuple[int, ...]) -> None:
    """ISO 14496-12, 6.2.2: (p, q, 1) times the matrix is where the stored point is shown; phones mirror selfies."""
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :24], stored[16:, 24:], stored[:16, 24:] = 255, 120, 60
    content = bytearray(videos.video([stored], rotation=180))
    turned = struct.pack(">4i", -65536, 0, 0, 0) + struct.pack(">i", -65536)
    position = content.index(turned)
    a, b, c, d = (65536 * value for value in matrix)
    content[position : position + 20] = struct.pack(">5i", a, b, 0, c, d)
    found = np.asarray(next(read_frames(bytes(content))).picture()).astype(int)
    expected = MATRICES[matrix](stored)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 4


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    """Music with a cover, and a film whose cover stands before its frames."""

    def with_cover(film: bool) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as out:
            cover = out.add_stream("png", rate=1, options={})
            cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
            cover.disposition = Disposition.attached_pic
            moving = out.add_stream("libx264", rate=8) if film else out.add_stream("aac", rate=16_000, layout="mono")
            if film:
                moving.width, moving.height, moving.pix_fmt = 32, 24, "yuv420p"
            out.start_encoding()
            red = av.VideoFrame.from_ndarray(np.full((16, 16, 3), (255, 0, 0), np.uint8), format="rgb24")
            out.mux(cover.encode(red))
            for pixels in videos.grey(4) if film else []:
                out.mux(moving.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux([*cover.encode(), *moving.encode()])
        return buffer.getvalue()

    assert [frame.picture().size for frame in read_frames(with_cover(film=True))] == [(32, 24)] * 4
    with pytest.raises(BadRow, match="only a cover picture"):
        list(read_frames(with_cover(film=False)))


@pytest.mark.parametrize(
    ("format", "codec", "name"),
    [
        ("mpegts", "libx264", "a.mp4"),
        ("flv", "libx264", "a.flv"),
        ("asf", "wmv2", "a.wmv"),
        ("mpeg", "mpeg2video", "a"),
    ],
)
def test_other_containers_are_called_by_their_name(tmp_path: Path, format: str, codec: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(videos.video(videos.grey(5, (64, 48)), 25, format, codec))
    assert require_kind(path, Size(8, 8, 5, 8.0)) == "video"
    with pytest.raises(BadRow, match=r"is (an MPEG|a Flash|a Windows).*mp4, mov, mkv, webm and avi are read"):
        next(read_frames(path))


def test_a_gif_is_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(pixels) for pixels in videos.grey(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert require_kind(path, Size(8, 8)) == "image"
    with pytest.raises(BadRow, match="is a GIF, which is read as one image; the model makes videos"):
        require_kind(path, Size(8, 8, 5, 8.0))


def test_frames_of_a_folder_must_agree_in_size(tmp_path: Path) -> None:
    frames = videos.folder(tmp_path / "clip", videos.grey(3))
    Image.new("RGB", (10, 10)).save(frames / "frame-1.png")
    assert kind_of(frames) == "malformed"


# what is refused


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncation(format: str, share: float, tmp_path: Path) -> None:
    whole = videos.video(videos.noise(12), 8, format)
    assert measure(whole).num_frames == 12
    cut = whole[: max(int(share * len(whole)), 24)]
    path = tmp_path / "cut.mp4"
    path.write_bytes(cut)
    for media in (cut, path):
        assert kind_of(media) == "truncated"
        with pytest.raises(BadRow):
            next(read_frames(media))


def test_truncation_where_the_index_comes_first() -> None:
    """As "faststart" writes it: mdat moved behind moov; the first frames would decode."""
    whole = videos.video(videos.noise(12), 8)
    boxes, position = {}, 0
    while position < len(whole):
        size = int.from_bytes(whole[position : position + 4])
        boxes[whole[position + 4 : position + 8]] = whole[position : position + size]
        position += size
    first = boxes[b"ftyp"] + boxes[b"moov"] + boxes[b"mdat"]
    assert kind_of(first[:-10]) == "truncated"


def test_damage_in_the_middle() -> None:
    content = bytearray(videos.video(videos.noise(12, (160, 128)), 8))
    start = content.find(b"mdat")
    content[start + 3000 : start + 3064] = b"\x55" * 64
    assert kind_of(bytes(content)) == "undecodable"


def test_nothing_to_see(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"not a video at all" * 10)
    (tmp_path / "folder").mkdir()
    assert kind_of(tmp_path / "empty.mp4") == "empty_image"
    assert kind_of(tmp_path / "text.mp4") == "undecodable"
    assert kind_of(tmp_path / "folder") == "empty_image"
    assert kind_of(tmp_path / "gone.mp4") == "missing_file"
    assert kind_of(Path("a\0.mp4")) == "missing_file"
    with pytest.raises(BadRow, match="no video stream") as caught:
        measure(videos.audio())
    assert caught.value.kind == "undecodable"


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    """FFmpeg would follow it, whatever the suffix."""
    (tmp_path / "real.mp4").write_bytes(videos.video(videos.grey(4)))
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/real.mp4\n#EXT-X-ENDLIST\n")
    assert kind_of(tmp_path / "list.mp4") == "undecodable"


@pytest.mark.parametrize("format", ["mp4", "matroska"])
def test_the_cap_on_pixels_is_judged_by_the_header(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = videos.video(videos.noise(3, (64, 48)), 8, format)
    assert measure(content, max_pixels=64 * 48).num_frames == 3
    monkeypatch.setattr(video_module.Frame, "__init__", None)  # no frame is made
    assert kind_of(content, max_pixels=64 * 48 - 1) == "too_large"


def test_a_header_that_says_too_much() -> None:
    """12,000 x 12,000 by the container's header, where the codec has none."""
    content = bytearray(videos.video(videos.grey(3, (64, 48)), 8, "avi", codec="rawvideo"))
    sides = (64).to_bytes(4, "little") + (48).to_bytes(4, "little")
    where = content.index(sides, content.index(b"strf"))
    content[where : where + 8] = (12_000).to_bytes(4, "little") * 2
    assert kind_of(bytes(content)) == "too_large"


def test_frames_that_grow_on_the_way() -> None:
    """The header says 64 x 48; the second frame, a JPEG, says 60,000 x 60,000."""
    content = bytearray(videos.video(videos.grey(3, (64, 48)), 8, "avi", codec="mjpeg"))
    sides = (48).to_bytes(2) + (64).to_bytes(2)  # in a JPEG's frame header, height first
    second = content.index(sides, content.index(sides, content.index(b"movi")) + 4)
    content[second : second + 4] = (60_000).to_bytes(2) * 2
    assert kind_of(bytes(content)) in ("too_large", "undecodable")


def test_the_cap_on_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "MAX_FRAMES", 10)
    frames = videos.folder(tmp_path / "clip", videos.grey(11))
    for media in (videos.video(videos.grey(11)), frames):
        assert kind_of(media) == "too_large"
    assert numbers(videos.video(videos.grey(11)), 9, 8) == list(range(9))  # decoded no further than needed


# lengths


def test_lengths_are_compared_by_the_frame() -> None:
    at_8 = [measure(videos.video(videos.grey(n), 8)) for n in (16, 17, 18)]
    at_16 = measure(videos.video(videos.grey(33), 16))
    assert not at_8[0].differs(at_8[1])
    assert at_8[0].differs(at_8[2])
    assert not at_8[0].differs(at_16)  # 2 s and 2.06 s
    assert at_8[2].differs(at_16)


def test_a_folder_has_no_length_in_seconds_without_a_rate(tmp_path: Path) -> None:
    short, long = (videos.folder(tmp_path / str(n), videos.grey(n)) for n in (8, 12))
    clip = measure(videos.video(videos.grey(8), 8))
    assert measure(short).differs(measure(long))
    assert not measure(long).differs(clip)
    size = Size(8, 8, 2, 8.0)
    assert measure(long, size).differs(clip)
    assert not measure(short, size).differs(clip)
