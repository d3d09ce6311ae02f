"""Encoding of videos: what is stored, resuming after SIGKILL, several processes, batches that fit the memory."""

import json
from pathlib import Path

import pytest
import torch
from support import videos
from support.folders import contents
from support.pictures import FakeEncoder
from support.processes import in_two

from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import EncodeRequest
from sipo.data.cache.read import Cache
from sipo.data.draws import draw_augmentation
from sipo.data.media.load import load_pixels
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.processes import ALONE, Processes
from sipo.size import Size

CLIP = Size(16, 16, 3, 8.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> PairSource:
    """Twelve pairs of videos in files and in folders of frames."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for n in range(12):
        (folder / f"{n}.mp4").write_bytes(videos.video(videos.noise(7, (48, 32), n), 16))
        videos.folder(folder / f"frames-{n}", videos.noise(4, (40, 32), 100 + n))
        rows.append({"prompt": f"prompt {n % 5}", "chosen": f"{n}.mp4", "rejected": f"frames-{n}"})
    (folder / "clips.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return open_pairs(folder / "clips.jsonl")


def encode_clips(
    source: PairSource, out: Path, backbone: FakeEncoder | None = None, processes: Processes = ALONE, **options
) -> FakeEncoder:
    backbone = backbone or FakeEncoder()
    settings = {"crop": "random", "flip": True, "batch_size": 2, "seed": 1, "pairs_per_shard": 2}
    encode_cache(backbone, EncodeRequest(source, list(range(12)), CLIP, **(settings | options)), out, processes)
    return backbone


def test_moments_of_videos(clips: PairSource, tmp_path: Path) -> None:
    backbone = encode_clips(clips, tmp_path)
    cache = Cache(tmp_path)
    for row in (0, 7, 11):
        sample, pair = cache.get(row), clips[row]
        crop = draw_augmentation(1, 0, pair.id, False, 0.0).crop
        for (moments, _), media in zip(sample.members, (pair.chosen, pair.rejected), strict=True):
            assert media is not None
            pixels, _ = load_pixels(media, CLIP, crop)
            assert torch.equal(moments[0], backbone.encode_media(pixels[None])[0])
            assert torch.equal(moments[1], backbone.encode_media(pixels.flip(-1)[None])[0])
            assert moments.shape == (2, 2, 3, 3, 4, 4)


def encode_share(processes: Processes, clips: PairSource, out: Path) -> None:
    encode_clips(clips, out, processes=processes)


def test_videos_resumed_and_by_two_processes(clips: PairSource, tmp_path: Path) -> None:
    class Dying(FakeEncoder):
        def encode_media(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.pictures > 20:
                raise KeyboardInterrupt
            return super().encode_media(pixels)

    encode_clips(clips, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        encode_clips(clips, tmp_path / "cut", Dying())
    finished = len(list((tmp_path / "cut").glob("pairs-*.seal")))
    assert encode_clips(clips, tmp_path / "cut").pictures == (12 - 2 * finished) * 4
    assert 0 < finished < 6
    in_two(encode_share, clips, tmp_path / "two")
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut") == contents(tmp_path / "two")


def test_large_media_are_encoded_in_small_batches(clips: PairSource, tmp_path: Path) -> None:
    sizes = []

    class Watching(FakeEncoder):
        def encode_media(self, pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(len(pixels))
            return super().encode_media(pixels)

    encode_clips(clips, tmp_path, Watching(), batch_size=8, pairs_per_shard=6, batch_bytes=2 * 4 * 3 * 3 * 16 * 16)
    assert sizes == [1] + [2] * 24
