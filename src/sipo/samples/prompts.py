"""Prompt lists: a text file, JSON Lines with metadata (GenEval's), a published set, or the list that ships here."""

import json
from pathlib import Path

from sipo.errors import UserError, shown
from sipo.files import expand_home, read_text
from sipo.registry import miniature, miniatures
from sipo.samples.folder import PromptItem
from sipo.samples.prompt_sets import READERS, PromptRow, read_styles


def read_prompts(
    path: str | Path, limit: int | None = None, seed: int = 0, images_per_prompt: int = 1
) -> list[PromptItem]:
    """The pictures to make from a prompt file: the first `limit` prompts, `images_per_prompt` seeds each.

    `path` ends in .txt (a prompt a line; blank lines do not count) or .jsonl (`{"prompt": ..., other keys}`; the other
    keys become `metadata`, as in GenEval's `evaluation_metadata.jsonl`; a text under "source" is also the path of the picture
    to start from, which models that read no source ignore), is a published prompt set
    (`sipo.samples.prompt_sets`: HPSv2's .json or their folder, Pick-a-Pic's .parquet, PartiPrompts' .tsv, DrawBench's
    .csv), or is a miniature's name: its held-out prompts. Picture i of the list gets the seed
    `seed + i`, so that the same call on two models makes pictures that pair up. Raises `UserError` for a missing, empty
    or unreadable file, naming the line.
    """
    if (limit is not None and limit < 1) or images_per_prompt < 1:
        raise UserError("The number of prompts and of images per prompt must be at least 1.")
    source = _resolve(path)
    rows = read_styles(source) if source.is_dir() else TEXT_AND_SETS[source.suffix](source)
    if not rows:
        raise UserError(f"{source} holds no prompt.")
    repeated = [row for row in rows[:limit] for _ in range(images_per_prompt)]
    return [
        PromptItem(prompt, seed + i, metadata, _source(metadata, source.parent))
        for i, (prompt, metadata) in enumerate(repeated)
    ]


def _source(metadata: dict | None, folder: Path) -> Path | None:
    """The picture to start from, for models that read one: a path under "source", relative to the folder of the prompt file."""
    name = (metadata or {}).get("source")
    return folder / expand_home(name) if isinstance(name, str) and name else None


def _resolve(path: str | Path) -> Path:
    if bundled := miniature(path):
        return bundled.heldout_prompts
    source = Path(path)
    if not source.exists():
        raise UserError(f"No prompt file at {source}. Packaged lists: {', '.join(miniatures.names())}.")
    if source.is_file() and source.suffix not in TEXT_AND_SETS:
        endings = ", ".join(TEXT_AND_SETS)
        raise UserError(f"{source}: prompts are read from files in {endings}, not {source.suffix or 'this'}.")
    return source


def _read_text(source: Path) -> list[PromptRow]:
    return [(line.strip(), None) for line in read_text(source).split("\n") if line.strip()]


def _read_jsonl(source: Path) -> list[PromptRow]:
    rows = []
    for number, line in enumerate(read_text(source).split("\n"), start=1):
        if not line.strip():
            continue
        record = _parse(source, number, line)
        prompt = record.pop("prompt")
        rows.append((prompt, record or None))
    return rows


def _parse(source: Path, number: int, line: str) -> dict:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}, line {number}: not JSON ({error}).") from error
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(
            f'{source}, line {number}: expected an object with a text under "prompt", found {shown(line[:60])}.'
        )
    return record


TEXT_AND_SETS = {".txt": _read_text, ".jsonl": _read_jsonl, **READERS}
"""By the ending of a file's name."""
