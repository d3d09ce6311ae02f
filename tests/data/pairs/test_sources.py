"""Pairs with a source: read from every kind of file, checked as a member is, and part of what the data is remembered by."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pictures import picture
from support.videos import noise, video

from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.importing import import_pairs
from sipo.data.pairs.open import open_pairs

SOUND = {"prompt": "make it blue", "chosen": "0.png", "rejected": "1.png", "source": "2.png"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(6):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    (tmp_path / "large.png").write_bytes(picture(9, (80, 80)))
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    (tmp_path / "cut.png").write_bytes(picture(8)[:-300])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "clip.mp4").write_bytes(video(noise(4, (16, 16)), fps=8))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(picture(0))
    return tmp_path


def manifest(folder: Path, rows: list[dict]) -> Path:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl"


def parquet(folder: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def saved(folder: Path, rows: list[dict]) -> Path:
    found = [{key: v if key == "prompt" or v is None else f"{folder}/{v}" for key, v in row.items()} for row in rows]
    datasets.Dataset.from_list(found).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("write", [manifest, parquet, saved])
def test_every_kind_of_file(folder, write):
    source = open_pairs(write(folder, [SOUND, {**SOUND, "source": None}, {**SOUND, "source": "3.png"}]))
    assert (source.has_source, source.has_rejected) == (True, True)
    assert [source[row].source for row in (0, 2)] == [folder / "2.png", folder / "3.png"]
    report = check_pairs(source, progress=False)
    assert (report.usable, report.rows("malformed")[0].index) == ([0, 2], 1)
    assert "there is no source" in report.rows("malformed")[0].detail


def test_bytes_in_a_table(folder):
    cells = {name: (folder / f"{n}.png").read_bytes() for n, name in enumerate(("chosen", "rejected", "source"))}
    source = open_pairs(parquet(folder, [{"prompt": "p", **cells}]))
    assert source[0].source == cells["source"]
    assert check_pairs(source, progress=False).usable == [0]


def test_imported_rows_keep_their_sources(folder):
    """What stands under `source` in other people's tables is often the name of a data set, which is no source."""
    named = {**SOUND, "prompt": "another", "source": "some-data-set"}
    (folder / "list.json").write_text(json.dumps([SOUND, named], indent=2))
    assert import_pairs(folder / "list.json", folder / "out.jsonl")["pairs"] == 2
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row.get("source") for row in rows] == ["2.png", None]


def test_data_without_sources(folder):
    row = {key: value for key, value in SOUND.items() if key != "source"}
    for write in (manifest, parquet):
        source = open_pairs(write(folder, [row]))
        assert not source.has_source
        assert source[0].source is None


def test_one_without_among_those_with_and_one_with_among_those_without(folder):
    without = {key: value for key, value in SOUND.items() if key != "source"}
    for first, other, detail in [
        (SOUND, without, "there is no source, though the first row has one"),
        (without, SOUND, "there is a source, though the first row has none"),
    ]:
        report = check_pairs(manifest(folder, [first, {**other, "prompt": "another"}]), progress=False)
        assert [(problem.kind, problem.detail) for problem in report.problems] == [("malformed", detail)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gone.png", "missing_file"),
        ("broken.png", "undecodable"),
        ("cut.png", "truncated"),
        ("empty.png", "empty_image"),
        ("large.png", "too_large"),
        ("clip.mp4", "mismatched"),
        ("frames", "mismatched"),
        ("../outside.png", "malformed"),
        (7, "malformed"),
    ],
)
def test_a_bad_source_is_a_bad_row_by_name(folder, name, kind):
    path = manifest(folder, [SOUND, {**SOUND, "source": name}])
    report = check_pairs(path, progress=False, max_pixels=1000)
    (problem,) = report.problems
    assert (problem.row, problem.kind) == ("pairs.jsonl:2", kind)
    assert kind == "malformed" or problem.detail.startswith("the source: ")


def test_a_member_may_be_the_source_itself(folder):
    """The rejected one is often the picture that was not edited."""
    assert check_pairs(manifest(folder, [{**SOUND, "source": "1.png"}]), progress=False).usable == [0]


def test_another_source_makes_another_pair(folder):
    rows = [SOUND, {**SOUND, "source": "3.png"}, {**SOUND, "source": "2.png"}]
    report = check_pairs(manifest(folder, rows), progress=False)
    assert [(problem.index, problem.kind) for problem in report.problems] == [(2, "duplicate")]


def test_a_source_belongs_to_fingerprint_and_stamp(folder):
    path = manifest(folder, [SOUND])
    before = open_pairs(path)
    first = before.fingerprint, before.stamp
    os.utime(folder / "2.png", ns=(1, 1))
    touched = open_pairs(path)
    assert touched.fingerprint == first[0]
    assert touched.stamp != first[1]
    (folder / "2.png").write_bytes(picture(7, (30, 30)))
    assert open_pairs(path).fingerprint != first[0]


def test_both_ways_of_the_scan_find_the_same(folder, monkeypatch):
    """Of rows of plain names, and of others, such as one in a folder above by its whole path."""
    rows = [
        SOUND,
        {**SOUND, "source": str(folder / "3.png")},
        {**SOUND, "source": "./4.png"},
        {**SOUND, "source": "gone.png"},
    ]
    path = manifest(folder, rows)
    found = open_pairs(path)
    expected = found.fingerprint, found.stamp
    monkeypatch.setattr("sipo.data.pairs.scan.plain_names", lambda row, members: [])
    slowly = open_pairs(path)
    assert (slowly.fingerprint, slowly.stamp) == expected
