"""Where pairs come from: the side of the chosen member and the models that made both, in every layout."""

import datasets
import pytest
from support.pictures import pick_a_pic, write_parquet

from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import Origin

MODELS = {"model_0": ["a", "b", None, "d"], "model_1": ["w", "x", "y", " z "]}  # jpg_0 is chosen in even rows


@pytest.fixture(params=["a file", "shards", "saved"])
def pairs(request, tmp_path):
    columns = pick_a_pic(4) | MODELS
    if request.param == "saved":
        datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "pairs"))
        return open_pairs(tmp_path / "pairs")
    if request.param == "a file":
        return open_pairs(write_parquet(tmp_path / "pairs.parquet", columns))
    for shard in range(2):
        part = {name: values[2 * shard : 2 * shard + 2] for name, values in columns.items()}
        write_parquet(tmp_path / f"{shard}.parquet", part)
    return open_pairs(tmp_path)


def test_pick_a_pic(pairs):
    assert pairs.origins([3, 0, 2]) == [
        Origin(False, ("z", "d")), Origin(True, ("a", "w")), Origin(True, ("", "y"))
    ]  # fmt: skip


def test_rows_without_such_columns(tmp_path):
    source = open_pairs(write_parquet(tmp_path / "pairs.parquet", pick_a_pic(2)))
    assert source.origins([0, 1]) == [Origin(True), Origin(False)]
    table = write_parquet(tmp_path / "named.parquet", {"prompt": ["p"], "chosen": [b"1"], "rejected": [b"2"]})
    assert open_pairs(table).origins([0]) == [Origin()]


def test_rapidata(tmp_path):
    columns = {"prompt": ["p", "q"], "image1": [b"1", b"2"], "image2": [b"3", b"4"], "votes_image1": [3, 8],
               "votes_image2": [5, 2], "model1": ["flux", "flux"], "model2": ["dalle", "mj"]}  # fmt: skip
    source = open_pairs(write_parquet(tmp_path / "votes.parquet", columns))
    assert source.origins([0, 1]) == [Origin(False, ("dalle", "flux")), Origin(True, ("flux", "mj"))]


def test_a_manifest(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(
        '{"prompt": "p", "chosen": "a.png", "rejected": "b.png", "chosen_model": "one", "rejected_model": 2}\n'
        '\nnot JSON\n{"prompt": "p", "chosen": "a.png", "rejected": "c.png"}\n'
    )
    assert open_pairs(tmp_path / "pairs.jsonl").origins([2, 0]) == [Origin(), Origin(None, ("one", "2"))]
