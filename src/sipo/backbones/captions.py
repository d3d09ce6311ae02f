"""Captions beyond what the text encoders read: the rest of such a caption is cut off, so captions may become one."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import transformers

from sipo.backbones.architecture import Architecture
from sipo.backbones.family import WindowedAdapter
from sipo.files import digest, hash_files, write_atomic

AT_ONCE = 1024


@dataclass(frozen=True)
class Overlong:
    """How many of `total` captions a text encoder cuts at `limit` tokens; `longest`: the most tokens that one has.

    windows: as many as would read the longest one (`model.caption_windows`); None where the family has no windows.
    """

    part: str
    limit: int
    count: int
    total: int
    longest: int
    windows: int | None = None

    def __str__(self) -> str:
        cure = f"; model.caption_windows: {self.windows} reads all of them" if self.windows else ""
        return (
            f"{self.count:,} of {self.total:,} captions are longer than {self.part} reads: {self.limit} tokens (the longest "
            f"has {self.longest:,}). The rest of them is cut off{cure}"
        )


def overlong(
    architecture: Architecture, folder: Path, captions: Collection[str], remember: Path | None = None
) -> list[Overlong]:
    """For each text encoder that cuts some. Equal captions count once. folder: where the tokenizers are.

    remember: a folder for results; the same captions and tokenizers are not counted again.
    """
    different = sorted(set(captions))
    if remember is None:
        return _count(architecture, folder, different)
    files = sorted(file for file in folder.glob("tokenizer*/*") if file.is_file())
    read = [architecture.adapter.tokens, architecture.model.caption_windows]
    place = remember / f"{digest(['captions', read, hash_files(files, True), different])}.json"
    try:
        return [Overlong(**each) for each in json.loads(place.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        found = _count(architecture, folder, different)
    write_atomic(place, json.dumps([asdict(each) for each in found]))
    return found


def _count(architecture: Architecture, folder: Path, different: list[str]) -> list[Overlong]:
    found, windows = [], architecture.model.caption_windows
    family = architecture.family
    for part in (part for part in family.text_encoders if part not in family.excerpts):
        padded = architecture.adapter.tokens[part]
        room = padded // windows - 2  # of a window, between its start and its end
        limit = windows * room + 2 if windows > 1 else padded - family.template
        name = part.replace("text_encoder", "tokenizer")
        tokenizer = getattr(transformers, architecture.configs["model_index"][name][1]).from_pretrained(folder / name)
        lengths = [
            len(tokens)
            for start in range(0, len(different), AT_ONCE)
            for tokens in tokenizer(different[start : start + AT_ONCE], truncation=False, verbose=False)["input_ids"]
        ]
        beyond = [length for length in lengths if length > limit]
        if beyond:
            needed = -(-(max(beyond) - 2) // room) if isinstance(architecture.adapter, WindowedAdapter) else None
            found.append(Overlong(part, limit, len(beyond), len(different), max(beyond), needed))
    return found
