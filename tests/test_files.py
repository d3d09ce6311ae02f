"""A file is whole or absent; hashes are those of `sha256sum`; names are sorted as people sort them."""

from hashlib import sha256

import pytest

from sipo.files import hash_file, hash_files, natural_order, write_atomic


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "ä")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_hashes(tmp_path):
    contents = {"b.txt": b"b" * 3_000_000, "a.txt": b""}
    files = [tmp_path / name for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
        assert hash_file(file) == sha256(content).hexdigest()
    digests = [sha256(content).digest() for content in contents.values()]
    assert hash_files(files) == sha256(digests[0] + digests[1]).hexdigest() != hash_files(files[::-1])
    assert hash_files(files, with_names=True) == sha256(b"b.txt" + digests[0] + b"a.txt" + digests[1]).hexdigest()


def test_natural_order():
    names = ["10.png", "2.png", "02.png", "a-10-2", "a-9-30", "a", ""]
    assert sorted(names, key=natural_order) == ["", "02.png", "2.png", "10.png", "a", "a-9-30", "a-10-2"]
