"""A cache that is not what it should be is refused, and what is wrong with it is named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
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
