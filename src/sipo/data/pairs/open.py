"""Preference pairs as users have them, whatever the file: `open_pairs` finds out which."""

from pathlib import Path

from sipo.data.pairs.hub import fetch_pairs
from sipo.data.pairs.manifest import open_manifest
from sipo.data.pairs.parquet import open_parquet, training_shards
from sipo.data.pairs.rows import PairSource, Ties
from sipo.data.pairs.saved import open_saved
from sipo.errors import UserError
from sipo.files import expand_home, visible
from sipo.hub.address import is_address
from sipo.registry import miniature

ACCEPTED = (
    "a .parquet file or a folder of them (Pick-a-Pic or Rapidata columns), a folder saved by Hugging Face datasets "
    "(save_to_disk), or a .jsonl manifest (prompt, chosen, rejected, strength, source)"
)


def open_pairs(path: str | Path, ties: Ties = "drop", max_pairs: int | None = None, ask_hub: bool = True) -> PairSource:
    """Open preference pairs; nothing is decoded yet.

    path: see `ACCEPTED`; a miniature's name stands for the pairs that come with it, and `hf://datasets/OWNER/NAME` for
    pairs on the hub (see `fetch_pairs`), which are downloaded; unless `ask_hub`, what is not on this machine is missing.
    ties: whether rows without a preference are left out ("drop") or are bad rows ("error").
    max_pairs: read only the first N rows.

    Raises UserError where the path is missing, ambiguous or in no known schema.
    """
    if ties not in ("drop", "error"):
        raise UserError(f"ties is 'drop' or 'error', not {ties!r}")
    if max_pairs is not None and max_pairs < 1:
        raise UserError(f"max_pairs should be at least 1, not {max_pairs}")
    bundled = miniature(path)
    if is_address(path):
        where = fetch_pairs(str(path), max_pairs, ask_hub).place
    else:
        where = bundled.pairs if bundled else Path(expand_home(str(path))).absolute()
    if not where.exists():
        raise UserError(
            f"{path} does not exist. Data is read from local files: {ACCEPTED}; or from the hub: hf://datasets/OWNER/NAME"
        )
    if where.is_dir():
        return _open_folder(where, ties, max_pairs)
    if where.suffix == ".parquet":
        return open_parquet([where], where.parent, ties, max_pairs)
    if where.suffix in (".jsonl", ".ndjson"):
        return open_manifest(where, ties, max_pairs)
    raise UserError(f"{path} is none of the files that can be read: {ACCEPTED}")


def _open_folder(folder: Path, ties: Ties, max_pairs: int | None) -> PairSource:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return open_saved(folder, ties, max_pairs)
    tables = visible(folder, folder.rglob("*.parquet"))
    manifests = visible(folder, [*folder.glob("*.jsonl"), *folder.glob("*.ndjson")])
    if tables and manifests:
        raise UserError(f"{folder} holds parquet files and {manifests[0].name}: name the one to use")
    if len(manifests) > 1:
        found = ", ".join(file.name for file in manifests)
        raise UserError(f"{folder} holds several manifests ({found}): name the one to use")
    if tables:
        return open_parquet(training_shards(tables), folder, ties, max_pairs)
    if manifests:
        return open_manifest(manifests[0], ties, max_pairs)
    tars = " It holds tar files: unpack them and write a JSONL manifest." if any(folder.glob("*.tar")) else ""
    raise UserError(f"{folder} holds nothing that can be read: {ACCEPTED}.{tars}")
