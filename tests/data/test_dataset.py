"""Items are functions of (seed, epoch, pair); both members of a pair are cut and mirrored alike."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import videos
from support.pictures import FakeEncoder, pick_a_pic, write_parquet
from torch.utils.data import DataLoader

from sipo.data.batches import Slot, collate, schedule_slots
from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import EncodeRequest
from sipo.data.cache.read import Cache
from sipo.data.dataset import CachedPairs, MediaPairs
from sipo.data.draws import draw_augmentation
from sipo.data.media.load import load_pixels
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError
from sipo.size import Size

SIZE = Size(height=8, width=6)


@pytest.fixture(scope="module")
def columns() -> dict[str, list]:
    columns = pick_a_pic(12, prompts=5)
    columns["jpg_1"] = columns["jpg_0"]  # the same picture twice: any difference comes from crop and flip
    return columns


@pytest.fixture(scope="module")
def pairs(columns: dict[str, list], tmp_path_factory: pytest.TempPathFactory) -> MediaPairs:
    source = open_pairs(write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", columns))
    return MediaPairs(source, [0, 2, 3, 5, 7, 11], SIZE, crop="random", flip=True, prompt_dropout=0.3, seed=4)


def test_members_share_crop_and_flip(pairs: MediaPairs) -> None:
    for epoch in range(5):
        for index in range(len(pairs)):
            item = pairs[Slot(index, epoch, 0)]
            assert torch.equal(item.members[0].media, item.members[1].media)


def test_an_item_is_what_its_draw_says(pairs: MediaPairs, columns: dict[str, list]) -> None:
    seen = set()
    for epoch in range(8):
        drawn = draw_augmentation(4, epoch, "pairs.parquet:3", flip=True, prompt_dropout=0.3)
        item = pairs[Slot(2, epoch, 9)]  # the third usable row is row 3
        expected, crops = load_pixels(columns["jpg_0"][3], SIZE, drawn.crop)
        assert torch.equal(item.members[0].media, expected.flip(-1) if drawn.flip else expected)
        assert torch.equal(item.members[0].micro_conditioning, crops[int(drawn.flip)])
        assert torch.equal(item.members[1].micro_conditioning, item.members[0].micro_conditioning)
        assert item.prompt == ("" if drawn.empty_prompt else "prompt 3")
        assert (item.id, item.slot) == ("pairs.parquet:3", 9)
        seen.add((drawn.flip, drawn.empty_prompt))
    assert len(seen) > 1


def test_shares_of_draws() -> None:
    draws = [draw_augmentation(0, epoch, f"f:{n}", True, 0.2) for epoch in range(20) for n in range(200)]
    spread = 5 * (0.25 / len(draws)) ** 0.5
    assert abs(sum(d.flip for d in draws) / len(draws) - 0.5) < spread
    assert abs(sum(d.empty_prompt for d in draws) / len(draws) - 0.2) < spread
    assert abs(sum(d.crop[0] for d in draws) / len(draws) - 0.5) < spread
    assert not any(
        draw_augmentation(0, epoch, "f:0", False, 0.0).flip
        or draw_augmentation(0, epoch, "f:0", False, 0.0).empty_prompt
        for epoch in range(50)
    )


def test_a_slot_in_the_batch_changes_nothing_in_the_data(pairs: MediaPairs) -> None:
    assert torch.equal(pairs[Slot(1, 2, 0)].members[0].media, pairs[Slot(1, 2, 31)].members[0].media)


def test_centre_crop_without_flip_is_the_same_in_every_epoch(pairs: MediaPairs) -> None:
    plain = replace(pairs, crop="center", flip=False, prompt_dropout=0.0)
    assert torch.equal(plain[Slot(0, 0, 0)].members[0].media, plain[Slot(0, 7, 0)].members[0].media)
    assert not torch.equal(pairs[Slot(0, 0, 0)].members[0].media, plain[Slot(0, 0, 0)].members[0].media)


def test_sft_does_not_read_the_rejected_member(columns: dict[str, list], tmp_path: Path) -> None:
    broken = columns | {"label_0": [1.0] * 12, "jpg_1": [b"not an image"] * 12}
    source = open_pairs(write_parquet(tmp_path / "pairs.parquet", broken))
    pairs = MediaPairs(source, list(range(12)), SIZE, with_rejected=False)
    batch = collate([pairs[Slot(0, 0, 0)]])
    assert batch.rejected is None
    assert batch.micro_conditioning.shape == (1, 1, 4)
    with pytest.raises(UserError, match=r"pairs\.parquet:1: .*not an image.*sipo data check"):
        replace(pairs, with_rejected=True)[Slot(1, 0, 0)]


def cached(pairs: MediaPairs, out: Path) -> CachedPairs:
    request = EncodeRequest(pairs.source, pairs.usable, SIZE, flip=True, pairs_per_shard=4)
    encode_cache(FakeEncoder(), request, out)
    return CachedPairs(Cache(out), pairs.usable, flip=True, prompt_dropout=0.3, seed=4)


def test_loader_workers_change_nothing(pairs: MediaPairs, tmp_path: Path) -> None:
    steps = [schedule_slots(len(pairs), 0, step, 4) for step in range(3)]
    for dataset in (pairs, cached(pairs, tmp_path / "cache")):
        dataset[steps[0][0]]  # what the parent has open must not trouble the workers
        alone = [collate([dataset[slot] for slot in slots]) for slots in steps]
        loader = DataLoader(dataset, batch_sampler=steps, collate_fn=collate, num_workers=2)
        for expected, found in zip(alone, loader, strict=True):
            assert (found.ids, found.prompts) == (expected.ids, expected.prompts)
            assert torch.equal(found.chosen, expected.chosen)
            assert torch.equal(found.rejected, expected.rejected)
            assert torch.equal(found.micro_conditioning, expected.micro_conditioning)
            assert found.micro_conditioning.shape == (2, 4, 4)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> PairSource:
    """Eight pairs of videos as bytes: the same one twice in each."""
    contents = [videos.video(videos.noise(7, (48, 32), seed), 16) for seed in range(8)]
    table = {"prompt": [f"prompt {n}" for n in range(8)], "chosen": contents, "rejected": contents}
    return open_pairs(write_parquet(tmp_path_factory.mktemp("clips") / "clips.parquet", table))


def test_members_that_are_videos_share_crop_flip_and_frames(clips: PairSource) -> None:
    size = Size(16, 16, 3, 8.0)
    pairs = MediaPairs(clips, list(range(8)), size, crop="random", flip=True, seed=1)
    flips = set()
    for index in range(8):
        item = pairs[Slot(index, 0, 0)]
        drawn = draw_augmentation(1, 0, item.id, True, 0.0)
        expected, crops = load_pixels(clips[index].chosen, size, drawn.crop)
        assert torch.equal(item.members[0].media, item.members[1].media)
        assert torch.equal(item.members[0].media, expected.flip(-1) if drawn.flip else expected)
        assert torch.equal(item.members[0].micro_conditioning, crops[int(drawn.flip)])
        flips.add(drawn.flip)
    assert flips == {True, False}
    assert collate([pairs[Slot(n, 0, n)] for n in range(2)]).chosen.shape == (2, 3, 3, 16, 16)


def test_a_cache_of_videos_gives_what_encoding_them_gives(clips: PairSource, tmp_path: Path) -> None:
    size = Size(16, 16, 3, 8.0)
    encode_cache(FakeEncoder(), EncodeRequest(clips, list(range(8)), size, flip=True), tmp_path)
    plain = MediaPairs(clips, list(range(8)), size, flip=True, seed=1)
    stored = CachedPairs(Cache(tmp_path), list(range(8)), flip=True, seed=1)
    for index in range(8):
        one, other = plain[Slot(index, 2, 0)], stored[Slot(index, 2, 0)]
        assert torch.equal(FakeEncoder().encode_media(one.members[0].media[None])[0], other.members[0].media)
        assert torch.equal(one.members[0].micro_conditioning, other.members[0].micro_conditioning)
        assert torch.equal(one.members[1].micro_conditioning, other.members[1].micro_conditioning)


def test_a_video_that_has_become_too_short_is_named(clips: PairSource) -> None:
    with pytest.raises(UserError, match=r"clips\.parquet:2: lasts 0\.44 s \(7 frames\).*sipo data check"):
        MediaPairs(clips, [2], Size(16, 16, 5, 8.0))[Slot(0, 0, 0)]


def test_data_sets_travel_to_spawned_workers(pairs: MediaPairs, tmp_path: Path) -> None:
    """Spawning pickles them, open files and all."""
    for dataset in (pairs, cached(pairs, tmp_path / "cache")):
        here = dataset[Slot(1, 3, 0)]
        there = pickle.loads(pickle.dumps(dataset))[Slot(1, 3, 0)]
        assert torch.equal(here.members[0].media, there.members[0].media)
        assert here.id == there.id
