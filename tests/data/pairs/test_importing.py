"""Every layout of docs/data.md becomes the manifest that its pairs are, read back by the reader of manifests."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pictures import picture
from typer.testing import CliRunner

from sipo.cli import app
from sipo.data.pairs.importing import import_pairs
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError

GOOD, BAD = picture(1), picture(2)


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def imported(source: Path, out: Path, **options) -> list[tuple[str, bytes, bytes]]:
    import_pairs(source, out, **options)
    source = open_pairs(out)
    return [
        (pair.prompt, pair.chosen.read_bytes(), pair.rejected.read_bytes())
        for pair in map(source.__getitem__, range(len(source)))
    ]


@pytest.fixture
def pictures(tmp_path) -> Path:
    for name, content in {"good.png": GOOD, "bad.png": BAD, "third.png": picture(3)}.items():
        put(tmp_path / name, content)
    return tmp_path


@pytest.mark.parametrize("sides", [("w", "l"), ("chosen", "rejected")])
def test_folders_of_winners_and_losers(tmp_path, sides):
    for side, content in zip(sides, (GOOD, BAD), strict=True):
        put(tmp_path / "data" / side / "1.png", content)
    put(tmp_path / "data" / sides[0] / "1.txt", "a cat\n")
    put(tmp_path / "data" / sides[0] / "2.png", GOOD)
    put(tmp_path / "data" / sides[0] / "._1.png", b"")
    assert imported(tmp_path / "data", tmp_path / "data" / "pairs.jsonl") == [("a cat", GOOD, BAD)]


def test_an_imagefolder_with_metadata(pictures):
    put(
        pictures / "metadata.jsonl",
        json.dumps({"prompt": "p", "chosen_file_name": "good.png", "rejected_file_name": "bad.png"}),
    )
    assert imported(pictures, pictures / "out.jsonl") == [("p", GOOD, BAD)]


@pytest.mark.parametrize("order", [{"human_preference": [0, 1]}, {"rank": [2, 1]}])
def test_hpdv2(pictures, order):
    source = put(pictures / "train.json", json.dumps([{"prompt": "p", "image_path": ["bad.png", "good.png"], **order}]))
    assert imported(source, pictures / "out.jsonl") == [("p", GOOD, BAD)]


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (["prompt", "image_a", "image_b", "winner"], ["p", "bad.png", "good.png", "B"]),
        (["Prompt", "video_1", "video_2", "preference"], ["p", "good.png", "bad.png", "1"]),
        (["caption", "image_left", "image_right", "choice"], ["p", "good.png", "bad.png", "left"]),
        (["prompt", "image_0", "image_1", "label"], ["p", "bad.png", "good.png", "1.0"]),
    ],
)
def test_tables_of_comparisons(pictures, columns, row):
    with (pictures / "ab.csv").open("w", newline="") as file:
        columns = [name.lower() if name.lower() in ("prompt",) else name for name in columns]
        csv.writer(file).writerows([columns, row, [*row[:-1], "tie"], [*row[:-1], ""]])
    assert imported(pictures / "ab.csv", pictures / "out.jsonl") == [("p", GOOD, BAD)]
    counts = import_pairs(pictures / "ab.csv", pictures / "out.jsonl")
    assert counts == {"pairs": 1, "ties": 1, "without a label": 1}


@pytest.mark.parametrize("named", [True, False])
def test_webdataset(tmp_path, named):
    parts = {"k1.chosen.png": GOOD, "k1.rejected.png": BAD, "k1.txt": b"p"} if named else {
        "k1.0.png": BAD, "k1.1.png": GOOD, "k1.json": json.dumps({"caption": "p", "label_0": 0}).encode()}  # fmt: skip
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(f"../../{name}")  # a name that leaves the folder leaves nothing
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert imported(tmp_path, tmp_path / "out" / "pairs.jsonl") == [("p", GOOD, BAD)]
    assert {f.parent for f in tmp_path.rglob("*.png")} == {tmp_path / "out" / "pairs-media" / "00000"}


def test_ranked_lists(pictures):
    source = put(pictures / "ranked.jsonl", json.dumps({"prompt": "p", "images": ["good.png", "third.png", "bad.png"]}))
    assert imported(source, pictures / "out.jsonl") == [("p", GOOD, BAD)]
    third = picture(3)
    assert imported(source, pictures / "out.jsonl", ranking="all") == [
        ("p", GOOD, third),
        ("p", GOOD, BAD),
        ("p", third, BAD),
    ]


def test_pick_a_pic_with_a_folder_of_downloads(pictures):
    rows = {"caption": ["p"] * 4, "image_0_uid": ["bad", "bad", "bad", "gone"], "image_1_uid": ["good"] * 4,
            "label_0": [0.0, 0.5, 0.0, 0.0], "has_label": [1, 1, 0, 1]}  # fmt: skip
    pq.write_table(pa.table(rows), pictures / "pickapic.parquet")
    assert imported(pictures / "pickapic.parquet", pictures / "o" / "out.jsonl", images=pictures) == [("p", GOOD, BAD)]
    counts = import_pairs(pictures / "pickapic.parquet", pictures / "out.jsonl", pictures)
    assert counts == {"pairs": 1, "ties": 1, "without a label": 1, "media are missing": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("listed", [True, False])
def test_json_of_any_layout(pictures, encoding, indent, listed):
    row = {"prompt": "é", "chosen": "good.png", "rejected": "bad.png", "strength": 0.75}
    text = json.dumps([row, row] if listed else row, indent=indent, ensure_ascii=False)
    source = put(pictures / "a.jsonl", (text if listed else f"{text},\n{text}").encode(encoding))
    assert imported(source, pictures / "out.jsonl") == [("é", GOOD, BAD)] * 2
    assert open_pairs(pictures / "out.jsonl")[0].strength == 0.75


def test_what_gives_no_pair_is_an_error(tmp_path):
    for source, message in [
        (put(tmp_path / "a.xlsx", "x"), "in no known layout"),
        (put(tmp_path / "a.csv", "prompt,x\np,1\n"), "no pair was found .1 of no known columns"),
        (put(tmp_path / "a.json", "[{"), "not JSON"),
        (put(tmp_path / "b.jsonl", ""), "it is empty"),
    ]:
        with pytest.raises(UserError, match=message):
            import_pairs(source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command(pictures):
    source = put(pictures / "a.jsonl", json.dumps({"prompt": "p", "images": ["good.png", "bad.png"]}))
    done = CliRunner().invoke(app, ["data", "import", str(source), "--out", str(pictures / "out.jsonl")])
    assert (done.exit_code, "1 pairs in" in done.output) == (0, True)
