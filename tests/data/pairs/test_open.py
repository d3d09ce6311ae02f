"""What `open_pairs` makes of a path."""

from pathlib import Path

import pytest
from support.pictures import pick_a_pic, write_parquet

from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError


def test_missing_or_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"yuvalkirstain/pickapic_v2 does not exist.*local files"):
        open_pairs("yuvalkirstain/pickapic_v2")
    (tmp_path / "pairs.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"pairs\.csv is none of the files that can be read"):
        open_pairs(tmp_path / "pairs.csv")
    with pytest.raises(UserError, match="holds nothing that can be read"):
        open_pairs(tmp_path)
    (tmp_path / "00000.tar").write_bytes(b"")
    with pytest.raises(UserError, match="unpack them"):
        open_pairs(tmp_path)


def test_ambiguous_folders(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "a.png"}\n')
    assert len(open_pairs(tmp_path)) == 1
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(UserError, match=r"several manifests \(a\.jsonl, b\.jsonl\)"):
        open_pairs(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    write_parquet(tmp_path / "c.parquet", pick_a_pic(1))
    with pytest.raises(UserError, match="name the one to use"):
        open_pairs(tmp_path)


def test_columns_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the columns foo"):
        open_pairs(write_parquet(tmp_path / "a.parquet", {"foo": [1]}))
    urls = {"caption": ["p"], "image_0_url": ["https://x"], "image_1_url": ["https://y"], "label_0": [1.0]}
    with pytest.raises(UserError, match="Download the images first"):
        open_pairs(write_parquet(tmp_path / "b.parquet", urls))
    nothing = {name: [] for name in pick_a_pic(0)}
    with pytest.raises(UserError, match="holds no rows"):
        open_pairs(write_parquet(tmp_path / "c.parquet", nothing))


def test_options_are_judged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'drop' or 'error'"):
        open_pairs(tmp_path, ties="keep")
    with pytest.raises(UserError, match="at least 1"):
        open_pairs(tmp_path, max_pairs=0)


def test_what_programs_leave_in_a_folder_is_no_data(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pick_a_pic(2))
    hidden = ["._a.parquet", ".ipynb_checkpoints/a-checkpoint.parquet", "__MACOSX/._a.parquet", "._pairs.jsonl"]
    for name in hidden:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7 resource fork")
    assert len(open_pairs(tmp_path)) == 2
