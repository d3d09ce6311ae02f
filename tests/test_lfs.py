"""Git LFS pointers are called what they are, wherever they lie in place of data."""

import pytest
from safetensors.torch import save_file

from sipo.data.bad_rows import BadRow
from sipo.data.media.decode_video import read_frames
from sipo.data.media.pictures import decode
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError
from sipo.lfs import refuse_pointers
from sipo.scorers.weights import find_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 492265168\n"


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_pairs(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer"):
        open_pairs(tmp_path / name)


def test_arrow(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"\.arrow is a Git LFS pointer"):
        open_pairs(tmp_path)


def test_media(tmp_path):
    for name, read in (("a.png", decode), ("a.mp4", lambda path: next(read_frames(path)))):
        (tmp_path / name).write_bytes(POINTER)
        with pytest.raises(BadRow, match="Git LFS pointer"):
            read(tmp_path / name)


def test_scorers(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    for weights in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(UserError, match="Git LFS pointer"):
            find_file(str(weights), "model.safetensors")


def test_sound_and_missing_files_pass(tmp_path):
    save_file({}, tmp_path / "a.safetensors")
    refuse_pointers([tmp_path / "a.safetensors", tmp_path / "missing", tmp_path])
