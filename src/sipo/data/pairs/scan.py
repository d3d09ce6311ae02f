"""One pass over a manifest: its prompts, and what the files that it names are now."""

import codecs
import hashlib
import os
import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import frame_files, is_folder
from sipo.data.pairs.rows import Pair
from sipo.files import MOST_LINES, digest_long, open_regular

Row = dict[str, Any]
File = tuple[str, int, int]  # name; bytes, -1 of a folder and of a file that is missing; time of modification, or -1


@dataclass(frozen=True)
class Scan:
    """fingerprint: of the manifest's text and every file's name and size. times: of modification, file by file.

    prompts: the different ones; prompt_of: which one each row has, -1 without any.
    """

    fingerprint: str
    times: array
    prompts: list[str]
    prompt_of: array


def scan(
    path: Path, rows: Iterable[Row | None], read: Callable[[Row, int], Pair], prompt: str, members: Sequence[str]
) -> Scan:
    """rows: those of the manifest `path`, None for a line without one; read: what makes a pair of one, or raises BadRow.

    prompt: its column; members: those of paths, where `plain_names` knows the schema.
    """
    times, prompts, prompt_of, folder = array("q"), {}, array("i"), f"{path.parent}/"

    def sizes() -> Iterator[str]:
        for index, row in enumerate(rows):
            text = row.get(prompt) if row else None
            prompt_of.append(prompts.setdefault(text, len(prompts)) if isinstance(text, str) else -1)
            if row:
                found = _plain_files(row, members, folder) or _files_of_pair(row, index, read)
                for name, size, time in found:
                    times.append(time)
                    yield f"[{encode_basestring(name)}, {size}]"

    fingerprint = digest_long([text_digest(path)], sizes())
    return Scan(fingerprint, times, list(prompts), prompt_of)


def text_digest(path: Path) -> str:
    """`digest(text)` of a file's text, read in pieces."""
    joint, decoder = hashlib.blake2b(b'"', digest_size=16), codecs.getincrementaldecoder("utf-8")("replace")
    with open_regular(path, MOST_LINES) as file:
        while True:
            content = file.read(2**20)
            joint.update(encode_basestring(decoder.decode(content, not content))[1:-1].encode("utf-8", "surrogatepass"))
            if not content:
                break
    joint.update(b'"')
    return joint.hexdigest()


def _plain_files(row: Row, members: Sequence[str], folder: str) -> list[File] | None:
    """The files of a row of pairs that is sound beyond doubt; None where `read` has to say.

    That takes ten times as long, which a million rows feel.
    """
    names, found = plain_names(row, members), []
    for name in names:
        try:
            state = os.stat(name if name[0] == "/" else folder + name)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(state.st_mode):
            return None
        found.append((name[name.rfind("/") + 1 :], state.st_size, state.st_mtime_ns))
    return found


def plain_names(row: Row, members: Sequence[str]) -> list[str]:
    """The paths of the members as they stand, in a row where nothing can be wrong with prompt, strength and them; else none."""
    prompt, strength = row.get("prompt"), row.get("strength", 1.0)
    if type(prompt) is not str or not prompt.isascii() or not prompt.strip():
        return []
    if type(strength) is not float or not 0 <= strength <= 1:
        return []
    names = []
    for member in members:
        name = row.get(member)
        if type(name) is not str or not name or name[0] in ".~" or name[-1] in "/." or not name.isascii():
            return []
        if "//" in name or "/." in name or ":" in name or "\0" in name:
            return []
        names.append(name)
    return names


def _files_of_pair(row: Row, index: int, read: Callable[[Row, int], Pair]) -> Iterator[File]:
    try:
        pair = read(row, index)
    except BadRow:
        return
    for member in (pair.chosen, pair.rejected, pair.source):
        if not isinstance(member, Path):
            continue
        for path in [member, *frame_files(member)] if is_folder(member) else [member]:
            state = _state(path)
            size = state.st_size if state and not stat.S_ISDIR(state.st_mode) else -1
            yield path.name, size, state.st_mtime_ns if state else -1


def _state(path: Path) -> os.stat_result | None:
    """None of a file that is missing, or whose name no file can have."""
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None
