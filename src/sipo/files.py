"""Files: written whole or not at all, whenever the process dies; hashed; and sorted as people sort their names."""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sipo.errors import DiskFull, UserError, printable

MOST_TEXT = 2**30  # bytes of a file of text that is read whole: prompts, lines of samples
MOST_LINES = 2**32  # of one that is read line by line


def hash_file(path: Path) -> str:
    """SHA-256 of the content, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(files: Iterable[Path], with_names: bool = False) -> str:
    """SHA-256, in hexadecimal, of the files' own SHA-256 digests in the given order, each after its name on request."""
    joint = hashlib.sha256()
    for file in files:
        joint.update((file.name.encode() if with_names else b"") + bytes.fromhex(hash_file(file)))
    return joint.hexdigest()


def digest(value: Any) -> str:
    """128 bits, in hexadecimal, of anything that JSON can represent; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def expand_home(path: str) -> str:
    """`os.path.expanduser`; a path that names no user stays as it is."""
    try:
        return os.path.expanduser(path)
    except ValueError:  # a null or half a character in the user's name
        return path


def digest_long(head: list, items: Iterable[str]) -> str:
    """`digest([*head, [...]])` of items that are JSON already, which are never all in memory."""
    joint = hashlib.blake2b(json.dumps(head, ensure_ascii=False)[:-1].encode("utf-8", "surrogatepass"), digest_size=16)
    items, separator = iter(items), ", ["
    while batch := list(itertools.islice(items, 4096)):
        joint.update((separator + ", ".join(batch)).encode("utf-8", "surrogatepass"))
        separator = ", "
    joint.update(b"]]" if separator == ", " else b", []]")
    return joint.hexdigest()


def own_cache(name: str) -> Path:
    """Where this program remembers what it found: $XDG_CACHE_HOME/sipo/NAME, or ~/.cache/sipo/NAME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sipo" / name


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts frame-2 before frame-10."""
    parts = re.split(r"([0-9]+)", name)  # text and numbers in turn, so that equal places compare
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def visible(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Those of the files below `folder` that no program hid there (`._a.parquet`, `.ipynb_checkpoints/`), sorted."""
    left_behind = ("__MACOSX", "@eaDir", "Thumbs.db")
    return sorted(
        file
        for file in files
        if not any(part.startswith(".") or part in left_behind for part in file.relative_to(folder).parts)
    )


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process while it writes there. Raises UserError where another one does; `what` it is doing."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks; two processes in one folder are the user's to avoid there
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            # A record lock: data workers, which are forked, do not inherit it, so it ends with a killed process.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(f"{folder} is in use by another {what} (process {file.read().strip()})") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def sync_directory(path: Path) -> None:
    """Make a rename inside `path` durable. A no-op where directories cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` (str as UTF-8) under a temporary name in the same folder, sync it, then rename it to `path`.

    A symbolic link stays, and what it points to is written. A device, a pipe or an open file under its name in /dev
    (`/dev/stdout`) is written to. Raises UserError for anything else that is no file, and DiskFull.
    """
    path = Path(path)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with room_in(path.parent, len(data)):
        if _is_stream(path):
            return _write_stream(path, data)
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        name = os.fsencode(target.name)[:200].decode("utf-8", "ignore")  # a file's name has 255 bytes at most
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(target.parent)


def append(path: Path, data: bytes, sync: bool = True) -> None:
    """Add to the end of a file, all of it or nothing. Raises DiskFull."""
    with room_in(path.parent, len(data)), path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            written = file.write(data)
            if written != len(data):
                file.write(data[written:])  # says why not all of it
            if sync:
                os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


@contextlib.contextmanager
def room_in(folder: Path, needed: int | None = None, kept: Callable[[], str] = str) -> Iterator[None]:
    """Where the disk fills up in this context, by whatever library, raises DiskFull: the folder, the size needed, and
    `kept`, a sentence on the last whole state."""
    try:
        yield
    except DiskFull as error:
        raise DiskFull(error.where, error.kept or kept()) from error
    except Exception as error:
        if not is_disk_full(error):
            raise
        free = shutil.disk_usage(
            next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
        ).free
        size = f"{needed:,} bytes are needed, " if needed is not None else ""
        raise DiskFull(f"{folder}: the disk is full ({size}{free:,} bytes are free)", kept()) from error


@contextlib.contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """A file or folder under a temporary name does not outlive an error in this context."""
    try:
        yield
    except BaseException:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, perhaps of a library in another language, says that there is no room."""
    text = str(error)
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or (
        "No space left on device" in text or "Disk quota exceeded" in text
    )


def open_regular(path: str | Path, most: int | None = None) -> io.BufferedReader:
    """A file for reading, if it is one. Raises UserError for a pipe, a device or a folder, for more than `most` bytes,
    and for a name that no file can have; OSError where it cannot be opened. Opening never waits."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise UserError(f"{printable(path)} is no name of a file ({error})") from None
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise UserError(
            f"{printable(path)} is a socket, or a device that is not there; expected a regular file"
        ) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{printable(path)} is a {kind_of(found.st_mode)}; expected a regular file")
        if most is not None and found.st_size > most:
            raise UserError(f"{printable(path)} has {found.st_size:,} bytes; at most {most:,} are read")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """The content of a file; errors as of `open_regular`."""
    with open_regular(path, most) as file:
        return file.read(most + 1)


def read_text(path: str | Path, most: int = MOST_TEXT, newline: str | None = None) -> str:
    """The text of a file in UTF-8, without a byte order mark; newline: as of `open`. Raises UserError for any other
    encoding; other errors as of `open_regular`."""
    with io.TextIOWrapper(open_regular(path, most), encoding="utf-8-sig", newline=newline) as file:
        try:
            return file.read()
        except UnicodeDecodeError as error:
            raise UserError(f"{printable(path)} is not UTF-8 text ({error})") from None


def kind_of(mode: int) -> str:
    """What a file's mode says it is, for people."""
    kinds = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _is_stream(path: Path) -> bool:
    """Whether to write into what the path names, rather than put a file in its place. Raises UserError."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return True
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a {kind_of(mode)}; expected a file to write")
    return str(path.absolute()).startswith(("/dev/", "/proc/"))


def _write_stream(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise UserError(f"{path} is a pipe from which no program reads") from None
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
