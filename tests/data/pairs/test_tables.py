"""Real parquet files and real `datasets` folders, read lazily, with the network cut."""

import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pictures import pick_a_pic, picture, write_parquet

from sipo.data.bad_rows import BadRow
from sipo.data.pairs import parquet
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("reading local data reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def part(columns: dict[str, list], start: int, stop: int) -> dict[str, list]:
    return {name: values[start:stop] for name, values in columns.items()}


def test_opening_converts_nothing(tmp_path: Path) -> None:
    """What a start with a complete cache asks for. `datasets`, a megabyte a shard, is not even loaded, before a row is read."""
    for number in range(3):
        write_parquet(tmp_path / f"train-{number:05d}-of-00003.parquet", pick_a_pic(4, prompts=2))
    code = """if True:
        import pickle, sys
        from sipo.data.pairs.open import open_pairs
        source = open_pairs(sys.argv[1])
        print(len(source), source.id(5), source.prompts([0, 5, 11]), source.has_rejected, len(source.stamp))
        print(source.prompts([1])[0] is source.prompts([5])[0])  # equal prompts are kept once
        print("_texts" in vars(source), "_texts" in vars(pickle.loads(pickle.dumps(source))), "datasets" in sys.modules)
        print(source[5].prompt, "datasets" in sys.modules)"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "12 train-00001-of-00003.parquet:1 ['prompt 0', 'prompt 1', 'prompt 1'] True 32",
        "True",
        "True False False",
        "prompt 1 True",
    ]


def test_threads_convert_a_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, calls, convert = open_pairs(write_parquet(tmp_path / "pairs.parquet", pick_a_pic(9))), [], parquet.convert
    monkeypatch.setattr(parquet, "convert", lambda *given: calls.append(given) or convert(*given))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: source[row].id, [*range(9)] * 5))
    assert found == [f"pairs.parquet:{row}" for row in range(9)] * 5
    assert len(calls) == 1


def test_a_parquet_file(tmp_path: Path) -> None:
    columns = pick_a_pic(5)
    columns["caption"][3] = "ein Kätzchen, 猫 🐈"
    source = open_pairs(write_parquet(tmp_path / "pairs.parquet", columns, row_group_size=2))
    assert (len(source), source.schema, source.has_rejected) == (5, "Pick-a-Pic", True)
    for n in range(5):
        chosen, rejected = (columns["jpg_0"][n], columns["jpg_1"][n])[:: 1 if n % 2 == 0 else -1]
        pair = source[n]
        assert (pair.id, pair.prompt) == (f"pairs.parquet:{n}", columns["caption"][n])
        assert (pair.chosen, pair.rejected) == (chosen, rejected)
    assert source.prompts([4, 3]) == ["prompt 4", "ein Kätzchen, 猫 🐈"]
    with pytest.raises(IndexError):
        source[5]
    again = pickle.loads(pickle.dumps(source))
    assert again[2] == source[2]


def test_shards_keep_their_order_and_their_rows(tmp_path: Path) -> None:
    """Folder names that are patterns to a shell, an empty shard, types that differ, a column that one shard lacks."""
    columns = pick_a_pic(7)
    folder = tmp_path / "a [1]*" / "data"
    folder.mkdir(parents=True)
    write_parquet(folder / "b.parquet", part(columns, 3, 7))
    whole = part(columns, 0, 3) | {"label_0": [1, 0, 1], "has_label": [True, False, True]}
    write_parquet(folder / "a.parquet", whole)
    empty = {name: pa.array([], pa.array(values).type) for name, values in columns.items()}
    pq.write_table(pa.table(empty), folder / "aa.parquet")
    source = open_pairs(folder.parent)
    assert [source.id(n) for n in (0, 2, 3, 6)] == [
        f"data/{name}" for name in ("a.parquet:0", "a.parquet:2", "b.parquet:0", "b.parquet:3")
    ]
    assert [source[n].prompt for n in (0, 2, 3, 6)] == ["prompt 0", "prompt 2", "prompt 3", "prompt 6"]
    with pytest.raises(BadRow) as caught:
        source[1]
    assert caught.value.kind == "unlabelled"
    assert source[3].chosen == columns["jpg_1"][3]


def test_a_tie_in_a_later_shard_survives_integers_in_the_first(tmp_path: Path) -> None:
    columns = pick_a_pic(2)
    write_parquet(tmp_path / "a.parquet", columns | {"label_0": [1, 0]})
    write_parquet(tmp_path / "b.parquet", columns | {"label_0": [0.5, 0.0]})
    source = open_pairs(tmp_path)
    with pytest.raises(BadRow) as caught:
        source[2]
    assert caught.value.kind == "tie"


def test_images_as_structs(tmp_path: Path) -> None:
    columns = pick_a_pic(2)
    columns["jpg_0"] = [{"bytes": image, "path": None} for image in columns["jpg_0"]]
    source = open_pairs(write_parquet(tmp_path / "pairs.parquet", columns))
    assert source[0].chosen == picture(0)


def test_max_pairs_looks_at_the_first_rows(tmp_path: Path) -> None:
    columns = pick_a_pic(6)
    write_parquet(tmp_path / "a.parquet", part(columns, 0, 3))
    write_parquet(tmp_path / "b.parquet", part(columns, 3, 6))
    (tmp_path / "c.parquet").write_bytes(b"never opened")
    source = open_pairs(tmp_path, max_pairs=4)
    assert len(source) == 4
    assert source[3].id == "b.parquet:0"
    with pytest.raises(IndexError):
        source[4]


def test_of_hub_shards_the_train_split(tmp_path: Path) -> None:
    columns = pick_a_pic(2)
    write_parquet(tmp_path / "train-00000-of-00001-ab12.parquet", columns)
    write_parquet(tmp_path / "validation_unique-00000-of-00001-cd34.parquet", columns)
    source = open_pairs(tmp_path)
    assert (len(source), source.id(1)) == (2, "train-00000-of-00001-ab12.parquet:1")
    (tmp_path / "train-00000-of-00001-ab12.parquet").rename(tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match="mixes the splits test, validation_unique"):
        open_pairs(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pick_a_pic(2))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"b\.parquet is not a readable parquet file"):
        open_pairs(tmp_path)


def test_rapidata_from_hugging_face_images(tmp_path: Path) -> None:
    """Written by `datasets` with Image features, whose metadata asks readers to decode; read back as bytes."""
    columns = {
        "prompt": ["a cat", "a dog"],
        "image1": [{"bytes": picture(1), "path": "1.png"}, {"bytes": picture(2), "path": "2.png"}],
        "image2": [{"bytes": picture(3), "path": "3.png"}, {"bytes": picture(4), "path": "4.png"}],
        "votes_image1": [20, 13],
        "votes_image2": [6, 13],
        "detailed_results": ["{}", "{}"],
    }
    saved = (
        datasets.Dataset.from_dict(columns)
        .cast_column("image1", datasets.Image())
        .cast_column("image2", datasets.Image())
    )
    saved.to_parquet(tmp_path / "rapidata.parquet")
    source = open_pairs(tmp_path / "rapidata.parquet")
    assert source.schema == "Rapidata"
    assert (source[0].chosen, source[0].strength) == (picture(1), 20 / 26)
    with pytest.raises(BadRow, match="13 votes each"):
        source[1]


def test_a_saved_dataset(tmp_path: Path) -> None:
    columns = pick_a_pic(4) | {"has_label": [True, True, False, True]}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "saved", num_shards=2)
    source = open_pairs(tmp_path / "saved")
    assert (len(source), source.schema) == (4, "Pick-a-Pic")
    assert (source[3].id, source[3].chosen) == ("saved:3", columns["jpg_1"][3])
    with pytest.raises(BadRow) as caught:
        source[2]
    assert caught.value.kind == "unlabelled"
    assert pickle.loads(pickle.dumps(source))[3] == source[3]
    assert len(open_pairs(tmp_path / "saved", max_pairs=3)) == 3


def test_of_a_saved_dataset_dict_the_train_split(tmp_path: Path) -> None:
    train, test = datasets.Dataset.from_dict(pick_a_pic(3)), datasets.Dataset.from_dict(pick_a_pic(2))
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "both")
    assert len(open_pairs(tmp_path / "both")) == 3
    assert len(open_pairs(tmp_path / "both" / "test")) == 2
    datasets.DatasetDict(dev=train, test=test).save_to_disk(tmp_path / "neither")
    with pytest.raises(UserError, match=r"none is called train: name one of .*neither/dev"):
        open_pairs(tmp_path / "neither")


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    content = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(3)).read_bytes()
    first = open_pairs(tmp_path / "pairs.parquet")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pairs.parquet").write_bytes(content)
    copy = open_pairs(tmp_path / "elsewhere" / "pairs.parquet")
    assert copy.fingerprint == first.fingerprint
    assert copy.stamp != first.stamp
    changed = pick_a_pic(3) | {"label_0": [1.0, 0.0, 0.0]}
    write_parquet(tmp_path / "elsewhere" / "pairs.parquet", changed)
    other = open_pairs(tmp_path / "elsewhere" / "pairs.parquet")
    assert other.fingerprint != first.fingerprint
    assert other[2].chosen == changed["jpg_1"][2]  # the converted table is that of the new file
