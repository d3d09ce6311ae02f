"""GenEval's folder of pictures (djghosh13/geneval: README.md), and the file of prompts that it is made from.

00000/metadata.jsonl        line 0 of the metadata file
00000/samples/0000.png ...  the pictures of that prompt
00001/...

Folders that are made here are media folders as well (`sipo.samples.folder`): samples.jsonl and settings.json lie beside.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.samples.folder import PromptItem
from sipo.samples.prompts import read_prompts

CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Picture:
    """A picture to judge, and the metadata of its prompt."""

    path: Path
    metadata: dict


def read_metadata(path: str | Path) -> list[dict]:
    """The prompts of an `evaluation_metadata.jsonl` in order: `prompt`, `tag`, `include` and, where given, `exclude`.

    "miniature" is the list that ships with the package. Raises `UserError` with the line's number where one is not
    what the judge needs.
    """
    entries = [(item.metadata or {}) | {"prompt": item.prompt} for item in read_prompts(path)]
    for number, entry in enumerate(entries, start=1):
        if fault := _fault(entry):
            raise UserError(f"{path}, prompt {number}: {fault}.")
    return entries


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


def write_metadata(folder: Path, entries: Sequence[dict]) -> None:
    """Put each prompt's metadata beside its pictures. A file that is there already is left alone."""
    for number, entry in enumerate(entries):
        path = Path(folder) / f"{number:05d}" / METADATA
        if not path.exists():
            write_atomic(path, json.dumps(entry, ensure_ascii=False))


def read_pictures(folder: Path) -> list[Picture]:
    """The pictures of a folder in the official layout, whoever made it, prompt by prompt.

    Raises `UserError` without any, and for a prompt without its metadata or without a picture.
    """
    found = []
    for place in sorted(path for path in Path(folder).glob("*") if path.is_dir() and path.name.isdigit()):
        entry = _read_entry(place / METADATA)
        names = (path for path in (place / "samples").glob("*.png") if re.fullmatch(r"\d+\.png", path.name))
        pictures = sorted(names, key=lambda path: int(path.stem))
        if not pictures:
            raise UserError(f"{place / 'samples'} holds no picture such as 0000.png: generate the rest first.")
        found += [Picture(path, entry) for path in pictures]
    if not found:
        raise UserError(f"{folder} is not in GenEval's layout: it has no 00000/samples/0000.png.")
    return found


def class_names(pictures: Sequence[Picture]) -> list[str]:
    """Every class that the pictures' prompts ask for or exclude, once each, sorted."""
    clauses = (c for picture in pictures for key in ("include", "exclude") for c in picture.metadata.get(key, []))
    return sorted({clause["class"] for clause in clauses})


def _read_entry(path: Path) -> dict:
    if not path.is_file():
        raise UserError(f"{path} is missing: generation was stopped before it was written; run it again.")
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
    if fault := _fault(entry):
        raise UserError(f"{path}: {fault}.")
    return entry


def _fault(entry: object) -> str | None:
    """What keeps the judge from using an entry, or None."""
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        return "expected an object with a text under `prompt`"
    if entry.get("tag") not in CATEGORIES:
        return f"`tag` is {entry.get('tag')!r}, none of {', '.join(CATEGORIES)}"
    if not entry.get("include"):
        return "`include` names no object"
    for number, clause in enumerate([*entry["include"], *entry.get("exclude", [])]):
        if not isinstance(clause, dict) or not isinstance(clause.get("class"), str):
            return f"clause {number} names no `class`"
        if type(clause.get("count")) is not int:
            return f"clause {number} has no whole number under `count`"
        if "position" in clause and clause["position"][1] not in range(number):
            return (
                f"clause {number} stands in relation to clause {clause['position'][1]}, which does not come before it"
            )
    return None
