"""Which video container a file is, and whether it lacks its end: read off its structure, before any decoder sees it."""

import os
from typing import BinaryIO

HEAD = 192  # bytes that tell a container; all but one need 16 at most
BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}  # what an mp4 or a QuickTime file begins with
STILLS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}  # pictures in the same container
LATER = BOXES | {b"moof", b"mfra", b"sidx", b"styp", b"emsg", b"udta", b"meta", b"uuid", b"pdin", b"prft", b"PICT"}
FOREIGN = {  # other containers of moving pictures, by their first bytes
    b"FLV\x01": "a Flash video (.flv)",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "a Windows Media video (.wmv, .asf)",
    b"\x00\x00\x01\xba": "an MPEG program stream (.mpg, .vob)",
    b"\x00\x00\x01\xb3": "an MPEG-1 or MPEG-2 video (.mpg, .m2v)",
    b".RMF": "a RealMedia video (.rm)",
    b"OggS": "an Ogg file (.ogv)",
    b"GIF8": "a GIF",
}
PACKET = 188  # bytes of a packet of an MPEG transport stream; each begins with SYNC, in .m2ts after a stamp of 4 bytes
SYNC = 0x47
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def container(head: bytes) -> str | None:
    """FFmpeg's name for what the first `HEAD` bytes begin: mov (mp4 too), matroska (webm too), avi; None: no video."""
    if head[4:8] in BOXES:
        return None if head[4:8] == b"ftyp" and head[8:12] in STILLS else "mov"
    if head[:4] == EBML:
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def foreign(head: bytes) -> str | None:
    """What a file of moving pictures is that is not read, for people; None for anything else."""
    for start in (0, 4):
        if len(head) > start + PACKET - 1 and head[start] == SYNC and head[start + PACKET : start + PACKET + 1] in (
            b"", bytes([SYNC])
        ):  # fmt: skip
            return "an MPEG transport stream (.ts, .m2ts)"
    return next((name for begins, name in FOREIGN.items() if head.startswith(begins)), None)


def is_cut_short(file: BinaryIO, kind: str) -> bool:
    """Whether the file ends before its own structure says; leaves the file at its start."""
    end = file.seek(0, os.SEEK_END)
    try:
        return {"mov": _mov, "matroska": _matroska, "avi": _avi}[kind](file, end)
    finally:
        file.seek(0)


def _mov(file: BinaryIO, end: int) -> bool:
    """A box goes past the end, or there is no moov: it is written last, unless the writer was asked otherwise."""
    position, found = 0, set()
    while position < end:
        file.seek(position)
        head = file.read(16)
        size = int.from_bytes(head[:4])
        if head[4:8] not in LATER and {b"moov", b"mdat"} <= found:  # padding, or what a program put after the last box
            break
        found.add(head[4:8])
        if size == 0:  # to the end of the file
            break
        size = int.from_bytes(head[8:16]) if size == 1 else size
        if size < 8:
            return False  # damaged rather than cut: the decoder will say
        position += size
    return position > end or b"moov" not in found


def _matroska(file: BinaryIO, end: int) -> bool:
    file.seek(len(EBML))
    header = _vint(file)
    if header is None:
        return True
    file.seek(header, os.SEEK_CUR)
    if file.read(len(SEGMENT)) != SEGMENT:
        return file.tell() >= end
    size = _vint(file)
    return size is not None and file.tell() + size > end


def _vint(file: BinaryIO) -> int | None:
    """EBML's integer of variable length; None where all its bits are set (unknown) or the file ends."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    value = int.from_bytes(first + rest) & ((1 << 7 * length) - 1)
    return None if len(rest) < length - 1 or value == (1 << 7 * length) - 1 else value


def _avi(file: BinaryIO, end: int) -> bool:
    position, size = 0, 0
    while position < end:
        file.seek(position)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return False
        size = int.from_bytes(head[4:8], "little")
        position += 8 + size + size % 2
    return position - size % 2 > end
