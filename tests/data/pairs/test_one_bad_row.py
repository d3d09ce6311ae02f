"""One bad row is one bad row: whatever a cell holds, the others are read, checked and trained on."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.pictures import picture
from support.special import SPECIAL

from sipo.data.bad_rows import KINDS
from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.importing import import_pairs
from sipo.data.pairs.open import open_pairs

NAMES = {
    "300 letters": "x" * 300 + ".png",
    "300 letters, a video": "x" * 300 + ".mp4",
    "5000 folders": "y/" * 5000 + "a.png",
    "null": "a\0.png",
    "null in a home": "~a\0/a.png",
    "nobody's home": "~nobody-of-that-name/a.png",
    "half a character": "\udc80.png",
    "half a character in a home": "~\ud800/a.png",
    "control characters": "\x1b[2J\r\n.png",
    **{f"a {name}": f"{name}.png" for name in SPECIAL},
    **{f"a {name}, a video": f"{name}.mp4" for name in SPECIAL},
    "a link to itself": "itself.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three pictures, and all that may lie in place of one."""
    folder = tmp_path_factory.mktemp("media")
    for n in range(3):
        (folder / f"{n}.png").write_bytes(picture(n))
    for name, put in SPECIAL.items():
        put(folder / f"{name}.png")
        put(folder / f"{name}.mp4")
    (folder / "itself.png").symlink_to("itself.png")
    return folder


def rows(names: list[str]) -> list[dict]:
    sound = [{"prompt": f"sound {n}", "chosen": "0.png", "rejected": f"{n}.png"} for n in (1, 2)]
    return [sound[0], *({"prompt": "p", "chosen": "0.png", "rejected": name} for name in names), sound[1]]


def manifest(folder: Path, names: list[str]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(names)))
    return path


def parquet(folder: Path, names: list[str]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows(names)), folder / "pairs.parquet")
    return folder / "pairs.parquet"


def saved(folder: Path, names: list[str]) -> Path:
    """Its relative paths are those of the folder itself, so the media are named by their whole paths."""
    found = [{key: v if key == "prompt" else f"{folder}/{v}" for key, v in row.items()} for row in rows(names)]
    datasets.Dataset.from_list(found).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("write", [manifest, parquet, saved])
def test_every_name(folder, write: Callable[[Path, list[str]], Path], tmp_path):
    """Strings of Arrow are UTF-8, so half characters are in manifests alone."""
    names = [name for name in NAMES.values() if write is manifest or name.isprintable() or name.isascii()]
    source = open_pairs(write(folder, names))
    report = check_pairs(source, progress=False, remember=tmp_path)
    assert report.usable == [0, len(names) + 1]
    assert [problem.index for problem in report.problems] == list(range(1, len(names) + 1))
    assert {problem.kind for problem in report.problems} <= set(KINDS)
    assert source.prompts(report.usable) == ["sound 1", "sound 2"]
    assert report.require("skip") == report.usable
    assert check_pairs(source, progress=False, remember=tmp_path) == report


def test_what_each_is_reported_as(folder):
    report = check_pairs(manifest(folder, list(NAMES.values())), progress=False)
    found = dict(zip(NAMES, report.problems, strict=True))
    assert found["300 letters"].kind == found["null"].kind == found["half a character"].kind == "missing_file"
    assert found["a sparse"].kind == found["a sparse, a video"].kind == "too_large"
    assert "42,949,672,960 bytes" in found["a sparse"].detail
    for kind in ("pipe", "device"):
        for name in (f"a {kind}", f"a {kind}, a video"):
            assert found[name].kind == "undecodable"
            assert f"is a {kind}; expected a regular file" in found[name].detail


def cells(column: pa.Array) -> pa.Table:
    sound = [picture(n) for n in range(2 * len(column))]
    return pa.table(
        {
            "jpg_0": sound[: len(column)],
            "jpg_1": sound[len(column) :],
            "label_0": [1.0] * len(column),
            "caption": column,
        }
    )


def test_a_caption_that_is_no_utf8(tmp_path):
    offsets, text = pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])), pa.py_buffer(b"a\xff")
    table = cells(pa.Array.from_buffers(pa.string(), 2, [None, offsets, text]))
    pq.write_table(table, tmp_path / "pairs.parquet")
    source = open_pairs(tmp_path / "pairs.parquet")
    report = check_pairs(source, progress=False)
    assert [(problem.index, problem.kind) for problem in report.problems] == [(1, "malformed")]
    assert source.prompts(report.usable) == ["a"]
    assert import_pairs_of_files(tmp_path)["damaged"] == 1


def import_pairs_of_files(folder: Path) -> dict:
    """The same damage in a table that names files."""
    for n in (0, 1):
        (folder / f"{n}.png").write_bytes(picture(n))
    offsets, text = pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])), pa.py_buffer(b"a\xff")
    prompts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, text])
    pq.write_table(
        pa.table({"prompt": prompts, "chosen": ["0.png"] * 2, "rejected": ["1.png"] * 2}), folder / "files.parquet"
    )
    return import_pairs(folder / "files.parquet", folder / "out.jsonl")


@pytest.mark.parametrize("when", [pa.array([0, 10**14], pa.timestamp("s")), pa.array([0, 2**31 - 1], pa.date32())])
def test_a_moment_beyond_those_of_python(tmp_path, when):
    """Python's years end with 9999."""
    pq.write_table(cells(when), tmp_path / "pairs.parquet")
    report = check_pairs(tmp_path / "pairs.parquet", progress=False)
    assert report.counts["malformed"] == 2


def test_import_leaves_it_out(folder, tmp_path):
    """An import opens no medium: the sparse ones are files, which the check refuses."""
    found = import_pairs(manifest(folder, list(NAMES.values())), tmp_path / "out.jsonl")
    assert found == {"pairs": 2 + 2, "media are missing": len(NAMES) - 2}
