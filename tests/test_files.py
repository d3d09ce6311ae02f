"""A file is whole or absent; hashes are those of `sha256sum`; names are sorted as people sort them."""

import errno
import os
import socket
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sipo.errors import DiskFull, UserError
from sipo.files import append, hash_file, hash_files, natural_order, read_regular, room_in, write_atomic


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


def test_a_link_stays_and_its_target_is_written(tmp_path):
    target, link, dangling = tmp_path / "a" / "target.json", tmp_path / "link.json", tmp_path / "dangling.json"
    write_atomic(target, "old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "b" / "new.json")
    write_atomic(link, "new")
    write_atomic(dangling, "made")
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    assert (dangling.is_symlink(), (tmp_path / "b" / "new.json").read_text()) == (True, "made")


def test_streams_are_written_to(tmp_path):
    """A pipe with a reader, a device, and standard output, whether it is a pipe or a file with text in it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(UserError, match="no program reads"):
        write_atomic(pipe, "nobody there")
    write_atomic(Path("/dev/null"), "away")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    program = (
        "import sys; from sipo.files import write_atomic as w; print('first', flush=True); w('/dev/stdout', 'second')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "first\nsecond"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"first\nsecond"


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        write_atomic(tmp_path, "x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(UserError, match="is a socket"):
            write_atomic(tmp_path / "s", "x")


def test_a_full_disk_is_a_sentence(tmp_path):
    """/dev/full answers every write with the system's own error."""
    with pytest.raises(
        DiskFull, match=r"/dev: the disk is full \(5 bytes are needed, [\d,]+ bytes are free\)\. Make room"
    ):
        write_atomic(Path("/dev/full"), "12345")
    with (
        pytest.raises(DiskFull, match=r"is full.*free\)\. Two shards are whole\. Make room"),
        room_in(tmp_path / "new", kept=lambda: "Two shards are whole"),
        room_in(tmp_path),
    ):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), room_in(tmp_path):
        raise SafetensorError("something else")


def test_a_torn_append_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    append(path, b"one\n")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(DiskFull):
        append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    good, pipe, sparse = tmp_path / "good", tmp_path / "pipe", tmp_path / "sparse"
    good.write_bytes(b"content")
    os.mkfifo(pipe)
    with sparse.open("wb") as file:
        file.truncate(40 * 10**9)
    assert read_regular(good, 7) == b"content"
    for path, what in ((pipe, "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder"), (sparse, "40,000,000,000 bytes"),
                       (good, "7 bytes; at most 6"), ("nul\0byte", "no name of a file")):  # fmt: skip
        with pytest.raises(UserError, match=what):
            read_regular(path, 6 if path == good else 10**9)
    for path in (tmp_path / "absent", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=r"No such file|too long"):
            read_regular(path)
