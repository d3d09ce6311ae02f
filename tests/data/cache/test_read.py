"""A cache that is not what it should be is refused, and what is wrong with it is named."""

import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors
import torch
from support.opens import mapped, opened
from support.pictures import FakeEncoder, pick_a_pic, write_parquet

from sipo.data.batches import Slot
from sipo.data.cache import read as cache_module
from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import EncodeRequest, made_by, require_same
from sipo.data.cache.read import Cache
from sipo.data.dataset import CachedPairs
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError
from sipo.size import Size
from sipo.train.engine import Processes
from sipo.train.inputs import verify

ROWS = [0, 1, 2, 4, 5]
SIZE = Size(8, 8)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PairSource:
    return open_pairs(write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", pick_a_pic(6)))


@pytest.fixture(scope="module")
def made(source: PairSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cache") / "cache"
    encode_cache(FakeEncoder(), EncodeRequest(source, ROWS, SIZE, pairs_per_shard=2), out)
    return out


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "cache")


def test_a_sound_cache(path: Path, source: PairSource) -> None:
    cache = Cache(path)
    cache.verify()
    assert cache.made_by == made_by(FakeEncoder().fingerprint(), EncodeRequest(source, ROWS, SIZE))
    assert len(cache) == 5
    assert cache.get(cache.position(4)).id == "pairs.parquet:4"
    with pytest.raises(KeyError):
        cache.position(3)


@pytest.mark.parametrize("name", ["pairs-00001.safetensors", "text-00000.safetensors"])
def test_a_truncated_shard_is_named_on_opening(path: Path, name: str) -> None:
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[:-7])
    with pytest.raises(UserError, match=rf"{name} has {len(content) - 7:,} bytes instead of {len(content):,}"):
        Cache(path)
    (path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        Cache(path)


@pytest.mark.parametrize("where", [4, -5])  # in the header, in the tensors
def test_one_flipped_bit_is_found(path: Path, where: int) -> None:
    name = "pairs-00002.safetensors"
    content = bytearray((path / name).read_bytes())
    content[where] ^= 1
    (path / name).write_bytes(content)
    cache = Cache(path)  # the size is right
    with pytest.raises(UserError, match=rf"{name} does not match its checksum.*Delete {name}"):
        cache.verify()


def verify_new(path: Path) -> list[str]:
    """As a start of a training does; the shards that were read."""
    with opened() as files:
        verify(Cache(path), Processes())
    return sorted(file.name for file in files if file.suffix == ".safetensors")


def test_a_shard_is_verified_once(path: Path) -> None:
    """No byte of an unchanged cache is read at the second start: nothing is opened, and nothing is mapped."""
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    assert verify_new(path) == shards
    assert verify_new(path) == []
    cache = Cache(path)
    assert mapped(path) == set()
    with opened() as files:
        verify(cache, Processes())
    assert {file.name for file in files} == {"verified.json"}


@pytest.mark.parametrize("as_before", [False, True])
def test_an_altered_shard_is_found_whatever_its_time_says(path: Path, as_before: bool) -> None:
    verify_new(path)
    name = "pairs-00001.safetensors"
    before, content = (path / name).stat(), bytearray((path / name).read_bytes())
    content[-3] ^= 1
    (path / name).write_bytes(content)
    if as_before:
        os.utime(path / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):  # it is not remembered as sound
        with opened() as files, pytest.raises(UserError, match=rf"{name} does not match its checksum \(1 such"):
            verify(Cache(path), Processes())
        assert [file.name for file in files if file.suffix == ".safetensors"] == [name]


def test_another_manifest_is_believed_by_no_memory(path: Path) -> None:
    verify_new(path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["shards"]["pairs-00000.safetensors"]["sha256"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"pairs-00000\.safetensors does not match"):
        verify(Cache(path), Processes())


@pytest.mark.parametrize("content", ["{", "[1]", '{"pairs-00000.safetensors": 1}'])
def test_a_damaged_memory_is_none(path: Path, content: str) -> None:
    (path / "verified.json").write_text(content)
    assert len(verify_new(path)) == 4
    assert verify_new(path) == []


def test_every_shard_is_mapped_once(path: Path, source: PairSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs in any order, over epochs; and the names of shards are not made again for each pair."""
    calls: list[str] = []
    real = safetensors.safe_open
    monkeypatch.setattr(safetensors, "safe_open", lambda name, **options: calls.append(name) or real(name, **options))
    cache = Cache(path)
    names = cache.plan.pair_shards
    pairs = CachedPairs(cache, ROWS)
    for index in [4, 0, 2, 1, 3] * 3:
        assert pairs[Slot(index, 0, 0)].id == f"pairs.parquet:{ROWS[index]}"
    assert sorted(Path(name).name for name in calls) == sorted(cache.checksums)
    assert cache.plan.pair_shards is names


def test_a_complete_cache_is_left_alone(path: Path, source: PairSource) -> None:
    """Its shards and seals are not opened, and its manifest is not written anew."""
    before = (path / "manifest.json").stat()
    with opened() as files:
        encode_cache(FakeEncoder(), EncodeRequest(source, ROWS, SIZE, pairs_per_shard=2), path)
    assert {file.name for file in files if file.parent == path} == {"manifest.json"}
    assert (path / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns


def test_rows_in_any_order(source: PairSource, tmp_path: Path) -> None:
    encode_cache(FakeEncoder(), EncodeRequest(source, [4, 0, 5], SIZE), tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    assert cache.positions([0, 5, 4, 4]).tolist() == [1, 2, 0, 0]
    for row in (0, 4, 5):
        assert cache.get(cache.position(row)).id == f"pairs.parquet:{row}"
    for missing in (-1, 3, 6):
        with pytest.raises(KeyError, match=str(missing)):
            CachedPairs(cache, [0, missing])


def test_a_damaged_header_is_named_on_reading(path: Path) -> None:
    name = "pairs-00000.safetensors"
    size = (path / name).stat().st_size
    (path / name).write_bytes(b"\xff" * size)
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        Cache(path).get(0)


def test_mending_encodes_the_missing_shard_alone(path: Path, made: Path, source: PairSource) -> None:
    (path / "pairs-00001.safetensors").unlink()
    backbone = FakeEncoder()
    encode_cache(backbone, EncodeRequest(source, ROWS, SIZE, pairs_per_shard=2), path)
    assert backbone.pictures == 4
    Cache(path).verify()
    assert all((path / file.name).read_bytes() == file.read_bytes() for file in made.iterdir())


def test_a_folder_without_a_manifest_is_no_cache(path: Path, tmp_path: Path) -> None:
    (path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"encoding was not finished"):
        Cache(path)
    with pytest.raises(UserError, match=r"no complete cache in"):
        Cache(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
def test_damaged_json_is_an_error_for_people(path: Path, name: str) -> None:
    (path / name).write_text('{"shards"')
    with pytest.raises(UserError, match=name):
        Cache(path)


def test_every_difference_of_origin_is_named(path: Path, source: PairSource) -> None:
    wanted = made_by(
        {"name": "other", "dtype": "float16"}, EncodeRequest(source, ROWS[:4], Size(16, 16, 5, 8.0), flip=True)
    )
    with pytest.raises(UserError) as caught:
        require_same(Cache(path).made_by, wanted, path)
    lines = str(caught.value).splitlines()
    named = {line.split(":")[0].strip() for line in lines[1:-1]}
    assert named == {
        "model.name",
        "model.dtype",
        "height",
        "width",
        "num_frames",
        "fps",
        "flip",
        "usable pairs",
        "usable rows",
    }
    assert "  height: 8 in the cache, 16 here" in lines
    assert "  num_frames: None in the cache, 5 here" in lines


def test_a_cache_of_an_older_version_is_refused(path: Path, source: PairSource) -> None:
    for name in ("plan.json", "manifest.json"):
        saved = json.loads((path / name).read_text())
        del saved["made_by"]["format"]
        (path / name).write_text(json.dumps(saved))
    message = r"written by another version of sipo \(format 1; this one reads 2\)\. Encode into another folder"
    with pytest.raises(UserError, match=message):
        Cache(path)
    with pytest.raises(UserError, match=message):
        encode_cache(FakeEncoder(), EncodeRequest(source, ROWS, SIZE), path)


def test_many_shards_are_not_all_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [Cache(path).get(n).members[0].media for n in range(5)]
    monkeypatch.setattr(cache_module, "OPEN_SHARDS", 2)
    cache = Cache(path)
    for n in (0, 1, 2, 3, 4, 0, 4, 2):
        assert torch.equal(cache.get(n).members[0].media, expected[n])
        assert len(cache._open) <= 2


def test_flip_needs_both_orientations(path: Path) -> None:
    with pytest.raises(UserError, match="holds one orientation"):
        CachedPairs(Cache(path), ROWS, flip=True)


def test_a_part_of_the_rows_and_dropped_prompts(path: Path) -> None:
    cache = Cache(path)
    pairs = CachedPairs(cache, [5, 1], prompt_dropout=0.5, seed=0)
    seen = set()
    for epoch in range(16):
        item = pairs[Slot(0, epoch, 2)]
        assert (item.id, item.slot) == ("pairs.parquet:5", 2)
        assert torch.equal(item.members[0].media, cache.get(4).members[0].media[0])
        expected = FakeEncoder().encode_prompts([item.prompt])["prompt_embeds"][0]
        assert torch.equal(item.conditioning["prompt_embeds"], expected)
        seen.add(item.prompt)
    assert seen == {"", "prompt 5"}
    assert json.loads((path / "plan.json").read_text())["rows"] == ROWS
