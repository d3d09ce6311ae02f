"""JSONL manifests with image files beside them."""

import json
import pickle
from pathlib import Path

import pytest
from support.pictures import picture

from sipo.data.bad_rows import BadRow
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_rows_are_lines(tmp_path: Path) -> None:
    source = open_pairs(
        write(
            tmp_path / "pairs.jsonl",
            {"prompt": "ein Kätzchen 猫", "chosen": "a.png", "rejected": "sub/b.png", "strength": 0.8},
            "",
            {"prompt": "a dog", "chosen": "/abs/c.png", "rejected": "d.png", "more": 1},
        )
    )
    assert (len(source), source.schema, source.has_rejected) == (2, "pairs", True)
    pair = source[0]
    assert (pair.id, pair.prompt, pair.strength) == ("pairs.jsonl:1", "ein Kätzchen 猫", 0.8)
    assert (pair.chosen, pair.rejected) == (tmp_path / "a.png", tmp_path / "sub/b.png")
    assert (source[1].id, source[1].chosen) == ("pairs.jsonl:3", Path("/abs/c.png"))
    assert source.prompts([1, 0]) == ["a dog", "ein Kätzchen 猫"]
    assert pickle.loads(pickle.dumps(source))[1] == source[1]
    assert len(open_pairs(tmp_path / "pairs.jsonl", max_pairs=1)) == 1


def test_windows_editors(tmp_path: Path) -> None:
    """A byte order mark and CRLF line ends."""
    row = json.dumps({"prompt": "é", "chosen": "a.png", "rejected": "b.png"}, ensure_ascii=False)
    (tmp_path / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n{row}\r\n".encode())
    source = open_pairs(tmp_path)
    assert [source[n].prompt for n in range(2)] == ["é", "é"]


def test_without_rejected_it_serves_sft(tmp_path: Path) -> None:
    source = open_pairs(
        write(
            tmp_path / "sft.jsonl",
            {"prompt": "p", "chosen": "a.png"},
            {"prompt": "q", "chosen": "b.png", "rejected": None},
        )
    )
    assert not source.has_rejected
    assert [source[n].rejected for n in range(2)] == [None, None]


def test_a_pair_without_its_rejected_member_is_malformed(tmp_path: Path) -> None:
    source = open_pairs(
        write(
            tmp_path / "pairs.jsonl",
            {"prompt": "p", "chosen": "a.png"},
            {"prompt": "q", "chosen": "b.png", "rejected": "c.png"},
        )
    )
    assert source.has_rejected
    with pytest.raises(BadRow, match="no rejected") as caught:
        source[0]
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize("line", ["{not json", "[1, 2]", "null", '"text"', "[" * 100_000])
def test_malformed_lines(tmp_path: Path, line: str) -> None:
    source = open_pairs(write(tmp_path / "pairs.jsonl", line, {"prompt": "p", "chosen": "a.png"}))
    with pytest.raises(BadRow) as caught:
        source[0]
    assert caught.value.kind == "malformed"
    assert source[1].id == "pairs.jsonl:2"


def test_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="no line that is a JSON object"):
        open_pairs(tmp_path / "pairs.jsonl")


def test_fingerprints_see_the_images(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", {"prompt": "p", "chosen": "a.png"})
    missing = open_pairs(path).fingerprint
    (tmp_path / "a.png").write_bytes(picture(1))
    there = open_pairs(path)
    assert missing != there.fingerprint
    stamp = there.stamp
    (tmp_path / "a.png").write_bytes(picture(1)[:-1] + b"x")
    assert open_pairs(path).stamp != stamp  # same size, another time


def test_lines_that_end_with_commas(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "p, q,", "chosen": "a.png", "rejected": "b.png"})
    source = open_pairs(write(tmp_path / "pairs.jsonl", f"{row},", f"{row} , ", row))
    assert [source[n].prompt for n in range(3)] == ["p, q,"] * 3


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (json.dumps({"prompt": "p", "chosen": "a.png"}).encode("utf-16"), "is UTF-16"),
        (json.dumps({"prompt": "p", "chosen": "a.png"}).encode("utf-16-le"), "is UTF-16"),
        (json.dumps([{"prompt": "p", "chosen": "a.png"}]).encode(), "is one JSON list"),
        (json.dumps([{"prompt": "p", "chosen": "a.png"}], indent=2).encode(), "is one JSON list"),
        (json.dumps({"prompt": "p", "chosen": "a.png"}, indent=2).encode(), "pretty-printed"),
        (b"\xef\xbb\xbf" + json.dumps({"prompt": "p", "chosen": "a.png"}, indent=2).encode(), "pretty-printed"),
        (b"", "it is empty"),
        (b"hello\n", "line 1: not a line of JSON"),
        (b'{"prompt": "p", "image": "a.png"}\n', "line 1, has the columns prompt, image.* lacks chosen"),
    ],
)
def test_files_that_are_no_json_lines_are_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=what):
        open_pairs(tmp_path / "pairs.jsonl")
