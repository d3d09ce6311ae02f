"""The card of a pushed run: that beside its weights, which now lie in a repository, with its result and its samples."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sipo.errors import UserError, printable
from sipo.files import read_text
from sipo.hub.address import REPOSITORY, is_address, parse_address
from sipo.tables import Markdown, code_block, markdown_table
from sipo.yaml12 import read_yaml, write_yaml

SETTINGS = "## Settings\n"
HERE = '"path/to/this/folder"'  # in the card beside weights
FILES = """## Files

| file | what it is |
|---|---|
| `config.yaml` | every setting; `sipo train hf://{repo} run=FOLDER` trains again (paths that were on a disk are names: give yours) |
| `metrics.jsonl` | what was measured, a line a step |
| `report.html` | the run as one page, with curves, samples and comparisons: download it and open it |
| `plots/` | the curves as pictures |
"""


def hub_card(
    text: str, config: dict[str, Any], repo: str, revision: str | None, result: str,
    samples: Sequence[tuple[str, ...]], is_video: bool | None,
) -> str:  # fmt: skip
    """text: the card beside the weights. result: the Markdown of the run's comparison, "" without one.

    samples: prompt, and the files of its first and its last sample. Raises UserError for a card without front matter.
    """
    found = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    if found is None:
        raise UserError("README.md beside the weights has no front matter: `sipo export` writes it again")
    front, body = read_yaml(found[1]), text[found.end() :]
    if not is_hub_id(front.get("base_model")):  # the hub refuses others
        front.pop("base_model", None)
    data = (config.get("data") or {}).get("path")
    if isinstance(data, str) and is_address(data):
        front["datasets"] = [parse_address(data).repo]
    if is_video is not None:
        front["pipeline_tag"] = "text-to-video" if is_video else "text-to-image"
    place = f'"{repo}"' + (f', revision="{revision}"' if revision else "")
    body, _, _ = body.replace(HERE, place).partition(SETTINGS)  # they name paths; `config` does so no longer
    settings = f"{SETTINGS}\n{code_block(write_yaml(config), 'yaml')}"
    made = f"## Result\n\n{_deeper(result)}" if result else ""
    sections = [body.rstrip() + "\n", made, _samples(samples), FILES.format(repo=repo), settings]
    return f"---\n{printable(write_yaml(front))}---\n" + "\n".join(section for section in sections if section)


def is_hub_id(name: object) -> bool:
    """Whether a base is named as on the hub, and is no folder here."""
    return isinstance(name, str) and REPOSITORY.fullmatch(name) is not None and not Path(name).exists()


def read_result(folder: Path) -> str:
    """The Markdown that a comparison left, the largest of several; "" without any."""
    files = sorted(folder.glob("*/comparison.md"), key=lambda file: (-len(list(file.parent.glob("*/*.png"))), file))
    return read_text(files[0]) if files else ""


def _deeper(text: str) -> str:
    """Headings a level down."""
    return re.sub(r"^(#+ )", r"#\1", text, flags=re.MULTILINE)


def _samples(samples: Sequence[tuple[str, ...]]) -> str:
    if not samples:
        return ""
    rows = [(prompt, Markdown(f"![before]({first})"), Markdown(f"![after]({last})")) for prompt, first, last in samples]
    table = markdown_table(["prompt", "first sample", "last sample"], rows, left=("first sample", "last sample"))
    return f"## Samples during training\n\nEach row has one seed.\n\n{table}"
