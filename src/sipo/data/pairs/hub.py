"""Pairs in a data set of the hub: which of its files are read, downloaded at one commit."""

from dataclasses import dataclass, replace
from pathlib import Path

from sipo.data.pairs.parquet import parquet_schema, training_shards
from sipo.errors import UserError
from sipo.files import visible
from sipo.hub.address import Address, parse_address
from sipo.hub.download import Listing, download, listing

MANIFESTS = (".jsonl", ".ndjson")
EXPECTED = "expected .parquet files, a .jsonl manifest, or a folder that `datasets` saved"


@dataclass(frozen=True)
class Fetched:
    """Pairs of the hub on this machine: what `open_pairs` opens, and the commit that it is of."""

    place: Path
    address: Address
    commit: str

    def to_dict(self) -> dict[str, str]:
        """For the record of a run."""
        return {"address": str(self.address), "commit": self.commit}


def fetch_pairs(path: str, max_pairs: int | None = None, ask: bool = True) -> Fetched:
    """Download the pairs at `hf://datasets/OWNER/NAME[@REVISION][/PATH]` into the cache of the hub's client.

    A parquet file, or the train split of a folder of them: only as many shards as `max_pairs` rows need. A manifest, or a
    folder that `datasets` saved: everything in its folder. ask: else what is not on this machine already is refused.

    Raises UserError where there is nothing that can be read, and for what the hub refuses.
    """
    address = parse_address(path)
    if address.kind != "dataset":
        raise UserError(f"{path} is a model; pairs are in data sets: hf://datasets/OWNER/NAME")
    found = listing(address, ask)
    if tables := _tables(found):
        folder = _shards(found, tables, max_pairs, ask)
    elif found.is_file:
        if not address.path.endswith(MANIFESTS):
            raise UserError(f"{path} holds no pairs that can be read: {EXPECTED}")
        above = replace(address, revision=found.commit, path=address.path.rpartition("/")[0])
        folder = _all(listing(above, ask), ask)  # its media lie beside it
    else:
        _require_one(found)
        folder = _all(found, ask)
    return Fetched(folder / address.path, address, found.commit)


def _all(found: Listing, ask: bool) -> Path:
    """A folder without the tables in it, which are pairs of their own."""
    return download(found, [file for file in found.files if not file.endswith(".parquet")], ask)


def _tables(found: Listing) -> list[str]:
    """The parquet files that are to be read, those of the train split. Raises UserError beside a manifest."""
    if found.is_file:
        return [file for file in found.files if file.endswith(".parquet")]
    if {"dataset_dict.json", "state.json"} & set(found.names):
        return []
    top = Path(found.address.path)
    files = visible(top, (Path(file) for file in found.files if file.endswith(".parquet")))
    if files and (manifests := [name for name in found.names if "/" not in name and name.endswith(MANIFESTS)]):
        raise UserError(f"{found.address} holds parquet files and {manifests[0]}: add the name of the one to use")
    try:
        return [file.as_posix() for file in training_shards(files)] if files else []
    except UserError as error:
        raise UserError(f"{found.address}: {error}") from None


def _require_one(found: Listing) -> None:
    """Raises UserError for a folder that `open_pairs` would refuse, before it is downloaded."""
    top = [name for name in found.names if "/" not in name]
    manifests = [name for name in top if name.endswith(MANIFESTS)]
    if len(manifests) > 1 and "state.json" not in top:
        raise UserError(
            f"{found.address} holds several manifests ({', '.join(manifests)}): add the name of the one to use"
        )
    if not manifests and not {"dataset_dict.json", "state.json"} & set(top):
        listed = ", ".join(sorted(found.names)[:5]) or "nothing"
        raise UserError(f"{found.address} holds no pairs that can be read: {EXPECTED}; found {listed}")


def _shards(found: Listing, tables: list[str], max_pairs: int | None, ask: bool) -> Path:
    """The folder with all of the tables; with `max_pairs`, with the first ones that have so many rows together."""
    if max_pairs is None:
        return download(found, tables, ask)
    rows, taken = 0, []
    for table in tables:
        taken.append(table)
        rows += parquet_schema(download(found, taken, ask) / table)[1]
        if rows >= max_pairs:
            break
    return download(found, taken, ask)
