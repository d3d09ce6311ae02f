"""The media of pairs outside a training: their marks, their files for scorers, and one picture of each for a page."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console

from sipo.data.bad_rows import BadRow
from sipo.data.media.decode_video import read_frames
from sipo.data.media.kinds import MediaFile, media_kind
from sipo.data.media.pictures import MAX_PIXELS, decode
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.processes import ALONE, Processes, batches
from sipo.processes.journal import Journal
from sipo.profile.duplicates import Mark, mark_of
from sipo.samples.folder import PICTURE, VIDEO

MEMBERS = ("chosen", "rejected")
AT_ONCE = 64  # pairs in a unit of work


def first_picture(media: MediaFile, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture, or the first frame of a video, upright RGB. Raises BadRow."""
    if media_kind(media) == "image":
        return decode(media, max_pixels)
    with contextlib.closing(read_frames(media, max_pixels=max_pixels)) as frames:
        return next(frames).picture()


def mark_pairs(
    source: PairSource,
    rows: list[int],
    file: Path,
    max_pixels: int = MAX_PIXELS,
    processes: Processes = ALONE,
    console: Console | None = None,
) -> list[Mark]:
    """The marks of both members of every row, one after the other, kept in `file`; the same call resumes.

    Raises UserError, which names the row, for a member that cannot be decoded.
    """
    journal = Journal(file, processes, "id")
    done = journal.begin()
    missing = [row for row in rows if source.id(row) not in done]

    def mark(row: int) -> dict[str, str]:
        try:
            found = [mark_of(first_picture(media, max_pixels)) for media in _members(source, row)]
        except BadRow as error:
            raise UserError(f"{source.id(row)}: {error}. Has the data changed since `sipo data check`?") from error
        return {
            "id": source.id(row),
            **{m: f"{k.hash:016x}{k.colours.hex()}" for m, k in zip(MEMBERS, found, strict=True)},
        }

    with (
        processes.progress(console, "looking for repeats", len(rows), len(rows) - len(missing)) as advance,
        ThreadPoolExecutor() as pool,
    ):
        for batch in processes.share(batches(missing, AT_ONCE)):
            journal.add(list(pool.map(mark, batch)))
            advance(len(batch))
    lines = journal.finish([source.id(row) for row in rows])
    texts = [lines[source.id(row)][member] for row in rows for member in MEMBERS]
    return [Mark(int(text[:16], 16), bytes.fromhex(text[16:])) for text in texts]


@dataclass(frozen=True)
class MediaFiles:
    """Files of the members of pairs: where they are already, else written into `folder` when they are first needed."""

    source: PairSource
    folder: Path

    def media(self, row: int, member: int) -> Path:
        """The picture or video, by its absolute path. member: 0 for the chosen one, 1 for the rejected one."""
        media = _members(self.source, row)[member]
        if isinstance(media, Path):
            return media.absolute()
        file = self._place(row, member, VIDEO if media_kind(media) == "video" else PICTURE)
        if not file.is_file():
            write_atomic(file, media)
        return file

    def picture(self, row: int, member: int) -> Path:
        """The picture, or the first frame of a video."""
        media = _members(self.source, row)[member]
        if media_kind(media) == "image":
            return self.media(row, member)
        file = self._place(row, member, PICTURE)
        if not file.is_file():
            first_picture(media).save(file)
        return file

    def _place(self, row: int, member: int, suffix: str) -> Path:
        return self.folder.absolute() / f"{row:07d}-{MEMBERS[member]}{suffix}"


def _members(source: PairSource, row: int) -> list[MediaFile]:
    pair = source[row]
    return [media for media in (pair.chosen, pair.rejected) if media is not None]
