"""GenEval's folder of pictures (djghosh13/geneval: README.md), and the file of prompts that it is made from.

00000/metadata.jsonl        line 0 of the metadata file
00000/samples/0000.png ...  the pictures of that prompt
00001/...

Folders made here are media folders too (`sipo.samples.folder`), with samples.jsonl and settings.json.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.samples.folder import METADATA, SETTINGS, PromptItem
from sipo.samples.metadata import read_metadata
from sipo.samples.prompts import read_prompts


@dataclass(frozen=True)
class Picture:
    """A picture to judge, and the metadata of its prompt."""

    path: Path
    metadata: dict


@dataclass(frozen=True)
class Gallery:
    """A folder's pictures, and what is missing, as a person would look for it: "00003/samples: 3 of 4 pictures"."""

    pictures: list[Picture] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_rewritten(path: str | Path, entries: Sequence[dict]) -> list[str]:
    """The texts to generate from instead of the entries' own: .txt or .jsonl, one for each entry and in their order.

    Raises `UserError` where their number differs, or where a line's own `include` is not that of its entry.
    """
    items = read_prompts(path)
    if len(items) != len(entries):
        raise UserError(f"{path} holds {len(items)} prompts, the metadata {len(entries)}: one is needed for each.")
    for number, (item, entry) in enumerate(zip(items, entries, strict=True), start=1):
        if (item.metadata or {}).get("include", entry["include"]) != entry["include"]:
            raise UserError(f"{path}, prompt {number}: its `include` is not that of {entry['prompt']!r}.")
    return [item.prompt for item in items]


def plan_pictures(
    entries: Sequence[dict], texts: Sequence[str], images_per_prompt: int = 4, seed: int = 0
) -> tuple[list[PromptItem], list[str]]:
    """What to make, and the official names of the files. Picture i of the list gets the seed `seed + i`."""
    places = [(number, image) for number in range(len(entries)) for image in range(images_per_prompt)]
    items = [PromptItem(texts[number], seed + i, entries[number]) for i, (number, _) in enumerate(places)]
    return items, [f"{number:05d}/samples/{image:04d}.png" for number, image in places]


def refuse_foreign(folder: Path) -> None:
    """`UserError` if pictures would be written among, or over, some that this command did not make."""
    if (Path(folder) / SETTINGS).exists():
        return
    for place in Path(folder).glob("*"):
        if _is_number(place) and (found := _numbered(place / "samples")):
            raise UserError(f"{found[0]} was not made by this command: choose another folder.")


def write_metadata(folder: Path, entries: Sequence[dict]) -> None:
    """Put each prompt's metadata beside its pictures. Existing files stay."""
    for number, entry in enumerate(entries):
        path = Path(folder) / f"{number:05d}" / METADATA
        if not path.exists():
            write_atomic(path, json.dumps(entry, ensure_ascii=False))


def read_gallery(folder: Path) -> Gallery:
    """The pictures of a folder in the official layout, prompt by prompt.

    Missing are prompts between the first number and the last, metadata, and pictures where other prompts have more.
    Raises `UserError` where there is no picture at all, and for metadata that the judge cannot use.
    """
    places = sorted((path for path in Path(folder).glob("*") if _is_number(path)), key=lambda path: int(path.name))
    numbers = {int(place.name) for place in places}
    gaps = sorted(set(range(min(numbers, default=0), max(numbers, default=0))) - numbers)
    missing = [f"{number:05d}: no folder" for number in gaps]
    samples = {place: _numbered(place / "samples") for place in places}
    expected = max(map(len, samples.values()), default=0)
    if not expected:
        raise UserError(f"{folder} is not in GenEval's layout: it has no 00000/samples/0000.png.")
    pictures = []
    for place, found in samples.items():
        if not (place / METADATA).is_file():
            missing.append(f"{place.name}/{METADATA}")
            continue
        if len(found) < expected:
            missing.append(f"{place.name}/samples: {len(found)} of {expected} pictures")
        entry = read_metadata(place / METADATA)[0]
        pictures += [Picture(path, entry) for path in found]
    if not pictures:
        raise UserError(f"{folder}: no prompt has its {METADATA}. Was generation stopped? The same command resumes it.")
    return Gallery(pictures, sorted(missing))


def class_names(pictures: Sequence[Picture]) -> list[str]:
    """Every class that the pictures' prompts ask for or exclude, once each, sorted."""
    clauses = (c for picture in pictures for key in ("include", "exclude") for c in picture.metadata.get(key, []))
    return sorted({clause["class"] for clause in clauses})


def _is_number(path: Path) -> bool:
    return path.is_dir() and re.fullmatch("[0-9]+", path.name) is not None


def _numbered(samples: Path) -> list[Path]:
    names = (path for path in samples.glob("*.png") if re.fullmatch(r"[0-9]+\.png", path.name))
    return sorted(names, key=lambda path: int(path.stem))
