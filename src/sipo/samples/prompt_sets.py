"""Published prompt sets, read from the files that users download; each reader gives (prompt, metadata) rows.

HPSv2's benchmark   anime.json, concept-art.json, paintings.json, photo.json: lists of 800 texts each (HPDv2, benchmark/),
                    one of them or the folder that holds all four; metadata `style`
Pick-a-Pic          parquet with `caption`, an example a row: the distinct captions of the test split; no metadata
PartiPrompts        PartiPrompts.tsv (google-research/parti), 1,632 rows, no quoting; metadata `category`, `challenge`
VBench              VBench_full_info.json (Vchitect/VBench), 946 entries, some of one prompt; metadata `dimension`
DrawBench           CSV with `Prompts` and `Category` (the Imagen paper's sheet), 200 rows; metadata `category`
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from sipo.errors import UserError, shown
from sipo.files import read_text
from sipo.lfs import refuse_pointers

PromptRow = tuple[str, dict | None]
"""A prompt and its benchmark's metadata."""

HPS_STYLES = ("anime", "concept-art", "paintings", "photo")
"""HPSv2's four styles, in the order of tgxs002/HPSv2: hpsv2/__init__.py."""

PROMPT_COLUMNS = ("prompt", "prompts", "caption")
KEPT_COLUMNS = ("category", "challenge")


def read_style(source: Path) -> list[PromptRow]:
    """One style of HPSv2's benchmark, a JSON list of texts, whose `style` is the file's name; or VBench's list of prompts."""
    try:
        prompts = json.loads(read_text(source))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON ({error}).") from error
    if not isinstance(prompts, list):
        raise UserError(f"{source}: expected a list of texts, as in HPSv2's anime.json, found {shown(prompts, 60)}.")
    if prompts and all(isinstance(entry, dict) and isinstance(entry.get("prompt_en"), str) for entry in prompts):
        return [(entry["prompt_en"], {"dimension": entry.get("dimension")}) for entry in prompts]
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"{source}, entry {number}: expected a text, found {shown(prompt, 60)}.")
    return [(prompt, {"style": source.stem}) for prompt in prompts]


def read_styles(folder: Path) -> list[PromptRow]:
    """HPSv2's whole benchmark: the four styles of a folder, one after the other."""
    missing = [f"{style}.json" for style in HPS_STYLES if not (folder / f"{style}.json").is_file()]
    if missing:
        raise UserError(f"{folder} is a folder without {', '.join(missing)}: HPSv2's benchmark has a file a style.")
    return [row for style in HPS_STYLES for row in read_style(folder / f"{style}.json")]


def read_captions(source: Path) -> list[PromptRow]:
    """The distinct texts of the column `caption` of a parquet file, in the order in which they first come."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        refuse_pointers([source])
        names = pq.read_schema(source).names
        if "caption" not in names:
            raise UserError(f"{source} has no column caption; it has {', '.join(names)}.")
        captions = pq.read_table(source, columns=["caption"]).column("caption").to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{source} is not a parquet file that can be read ({error}).") from error
    return [(text, None) for text in dict.fromkeys(captions) if isinstance(text, str) and text.strip()]


def read_tsv(source: Path) -> list[PromptRow]:
    """PartiPrompts: tab-separated with a header, quotation marks are part of the text."""
    return _read_table(source, csv.DictReader(io.StringIO(read_text(source)), delimiter="\t", quoting=csv.QUOTE_NONE))


def read_csv(source: Path) -> list[PromptRow]:
    """DrawBench: comma-separated with a header, quoted where a prompt holds commas or line breaks."""
    return _read_table(source, csv.DictReader(io.StringIO(read_text(source), newline="")))


def _read_table(source: Path, reader: csv.DictReader) -> list[PromptRow]:
    """The prompt of each row, and its category and challenge; rows without a prompt are skipped."""
    try:
        return _rows_of(source, reader)
    except csv.Error as error:
        raise UserError(f"{source}, line {reader.line_num}: not a row of a table ({error}).") from error


def _rows_of(source: Path, reader: csv.DictReader) -> list[PromptRow]:
    columns = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
    column = next((columns[name] for name in PROMPT_COLUMNS if name in columns), None)
    if column is None:
        found = ", ".join(columns.values()) or "nothing"
        raise UserError(f"{source}: expected a header with a column Prompt or Prompts, found {found}.")
    rows = []
    for record in reader:
        prompt = (record[column] or "").strip()
        known = {name: record[columns[name]] for name in KEPT_COLUMNS if name in columns and record[columns[name]]}
        if prompt:
            rows.append((prompt, known or None))
    return rows


READERS: dict[str, Callable[[Path], list[PromptRow]]] = {
    ".json": read_style,
    ".parquet": read_captions,
    ".tsv": read_tsv,
    ".csv": read_csv,
}
"""By the ending of a file's name."""
