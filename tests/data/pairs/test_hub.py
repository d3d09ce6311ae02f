"""Pairs in data sets of the hub are those of the same files on the disk; no file is downloaded that is not read."""

import datasets
import pytest
from support.pictures import pick_a_pic, picture, write_parquet

from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.hub import fetch_pairs
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError


def content(folder) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def read(source: PairSource) -> list[tuple]:
    return [(pair.id, pair.prompt, bytes_of(pair.chosen), bytes_of(pair.rejected)) for pair in map(source.__getitem__, range(len(source)))]  # fmt: skip


def bytes_of(media) -> bytes:
    return media if isinstance(media, bytes) else media.read_bytes()


@pytest.fixture
def shards(tmp_path):
    """Three shards of a train split of 4 rows each, one of a test split, a card."""
    folder = tmp_path / "shards"
    (folder / "data").mkdir(parents=True)
    for number in range(3):
        write_parquet(folder / "data" / f"train-{number:05d}-of-00003.parquet", pick_a_pic(4, prompts=2 + number))
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", pick_a_pic(2))
    (folder / "README.md").write_text("# pairs")
    return folder


def downloaded(hub) -> list[str]:
    return sorted(request.rpartition("/")[2] for request in hub.requests if request.startswith("GET /datasets/"))


def test_shards_of_the_train_split(hub, shards):
    repository = hub.data_set("o/n", content(shards))
    source = open_pairs("hf://datasets/o/n")
    assert read(source) == read(open_pairs(shards))
    assert source.fingerprint == open_pairs(shards).fingerprint
    assert downloaded(hub) == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert check_pairs("hf://datasets/o/n/data", progress=False).num_rows == 12
    fetched = fetch_pairs("hf://datasets/o/n")
    assert fetched.to_dict() == {"address": "hf://datasets/o/n", "commit": repository.branches["main"]}


@pytest.mark.parametrize(("max_pairs", "count"), [(3, 1), (4, 1), (5, 2), (99, 3)])
def test_as_many_shards_as_the_rows_need(hub, shards, max_pairs, count):
    hub.data_set("o/n", content(shards))
    source = open_pairs("hf://datasets/o/n", max_pairs=max_pairs)
    assert len(downloaded(hub)) == count
    assert read(source) == read(open_pairs(shards, max_pairs=max_pairs))


def test_one_file_of_a_revision(hub, shards):
    repository = hub.data_set("o/n", {"README.md": b""})
    repository.commit(content(shards), "refs/convert/parquet")
    source = open_pairs("hf://datasets/o/n@refs/convert/parquet/data/test-00000-of-00001.parquet")
    assert read(source) == read(open_pairs(shards / "data" / "test-00000-of-00001.parquet"))
    assert downloaded(hub) == ["test-00000-of-00001.parquet"]


@pytest.mark.parametrize("path", ["", "/pairs.jsonl"])
def test_a_manifest_with_the_pictures_beside_it(hub, tmp_path, path):
    folder = tmp_path / "manifest"
    (folder / "media").mkdir(parents=True)
    for n in range(4):
        (folder / "media" / f"{n}.png").write_bytes(picture(n))
    (folder / "pairs.jsonl").write_text(
        "".join(f'{{"prompt": "p{n}", "chosen": "media/{2 * n}.png", "rejected": "media/{2 * n + 1}.png"}}\n' for n in range(2))
    )  # fmt: skip
    hub.data_set("o/n", content(folder))
    source = open_pairs(f"hf://datasets/o/n{path}")
    assert read(source) == read(open_pairs(folder))
    assert source.fingerprint == open_pairs(folder).fingerprint
    assert check_pairs(source, progress=False).num_usable == 2


def test_what_datasets_saved(hub, tmp_path):
    table = datasets.Dataset.from_dict(pick_a_pic(3))
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    hub.data_set("o/n", {f"deep/{file}": found for file, found in content(tmp_path / "saved").items()})
    assert read(open_pairs("hf://datasets/o/n/deep")) == read(open_pairs(tmp_path / "saved"))


def test_what_cannot_be_read_is_not_downloaded(hub, shards):
    tables = content(shards)
    hub.data_set("o/csv", {"a.csv": b"", "b.txt": b""})
    hub.data_set("o/both", {"pairs.jsonl": b"", "a.parquet": b""})
    hub.data_set("o/many", {"a.jsonl": b"", "b.jsonl": b""})
    hub.data_set("o/splits", {"data/one-00000-of-00001.parquet": b"", "data/two-00000-of-00001.parquet": b""})
    hub.model("o/model", tables)
    for address, message in {
        "hf://datasets/o/csv": r"hf://datasets/o/csv holds no pairs that can be read: expected .parquet files.*; found a\.csv, b\.txt",
        "hf://datasets/o/csv/a.csv": r"a\.csv holds no pairs that can be read: expected",
        "hf://datasets/o/both": r"holds parquet files and pairs\.jsonl: add the name of the one to use",
        "hf://datasets/o/many": r"holds several manifests \(a\.jsonl, b\.jsonl\)",
        "hf://datasets/o/splits": r"hf://datasets/o/splits: .*mixes the splits one, two",
        "hf://o/model": "is a model; pairs are in data sets: hf://datasets/OWNER/NAME",
        "hf://datasets/o": "is no address of the hub",
    }.items():
        with pytest.raises(UserError, match=message):
            open_pairs(address)
    assert downloaded(hub) == []
    with pytest.raises(UserError, match="or from the hub: hf://datasets/OWNER/NAME"):
        open_pairs("o/csv")


def test_a_plan_asks_nobody(hub, shards):
    hub.data_set("o/n", content(shards))
    with pytest.raises(UserError, match="the hub is not asked here"):
        open_pairs("hf://datasets/o/n", ask_hub=False)
    assert hub.requests == []
    open_pairs("hf://datasets/o/n")
    hub.requests.clear()
    assert len(open_pairs("hf://datasets/o/n", ask_hub=False)) == 12
    assert hub.requests == []
