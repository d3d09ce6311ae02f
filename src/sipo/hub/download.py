"""Files of the hub in its client's cache: listed at a commit, downloaded where they are missing, found again offline."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from sipo.errors import UserError, did_you_mean
from sipo.files import digest, own_cache, write_atomic
from sipo.hub.address import COMMIT, Address
from sipo.hub.refusal import OutOfReach, refusals
from sipo.jsonl import read_json
from sipo.screen import Screen

AT_ONCE = 8


@dataclass(frozen=True)
class Listing:
    """The files at an address. files: their names in the repository, with their sizes in bytes (0: not known)."""

    address: Address
    commit: str
    files: dict[str, int]

    @property
    def is_file(self) -> bool:
        """Whether the address is that of one file."""
        return list(self.files) == [self.address.path]

    @property
    def names(self) -> list[str]:
        """Relative to the address, where that is a folder; the address itself, where it is a file."""
        return [self.relative(file) for file in self.files]

    def relative(self, file: str) -> str:
        path = self.address.path
        return file.rpartition("/")[2] if file == path else file[len(path) + 1 if path else 0 :]


def listing(address: Address, ask: bool = True) -> Listing:
    """What lies at an address now. Where the hub is out of reach, what lay there when it was last asked, or what its
    client has in its cache. ask: else it counts as out of reach.

    Raises UserError where the repository, its revision or the path is not there, or nothing of it is on this machine.
    """
    asked = _memory(address, "revision", address.revision)
    try:
        commit = _resolve(address, ask)
        write_atomic(asked, json.dumps({"commit": commit}))
    except OutOfReach as error:
        commit = _remembered(asked, "commit", str)
        if commit is None:
            return _cached(address, error)
    listed = _memory(address, "commit", commit)
    paths = _remembered(listed, "paths", dict) or {}
    files = _part(paths, address.path)
    if files is None:
        try:
            files = _list(address, commit, ask)
        except OutOfReach as error:
            if paths:  # what is in the cache may be a part, which this program downloaded
                raise OutOfReach(f"{error}, and what lies there was not listed before") from error
            return _cached(address.at(commit), error)
        write_atomic(listed, json.dumps({"paths": {**paths, address.path: files}}))
    return Listing(address, commit, files)


def _part(paths: dict[str, dict[str, int]], path: str) -> dict[str, int] | None:
    """The files at `path` out of what was listed there, or above; None where that tells nothing."""
    above = path
    while above not in paths and above:
        above = above.rpartition("/")[0]
    files = paths.get(above, {})
    return {
        file: size for file, size in files.items() if not path or file == path or file.startswith(f"{path}/")
    } or None


def _resolve(address: Address, ask: bool) -> str:
    from huggingface_hub import HfApi

    if address.revision and COMMIT.fullmatch(address.revision):
        return address.revision
    _require_leave(address, ask)
    with refusals(str(address)):
        found = HfApi().repo_info(address.repo, repo_type=address.kind, revision=address.revision)
    if found.sha is None:
        raise UserError(f"{address}: the repository is empty")
    return found.sha


def _list(address: Address, commit: str, ask: bool) -> dict[str, int]:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    _require_leave(address, ask)
    parent, _, name = address.path.rpartition("/")
    with refusals(str(address)):
        beside = {}
        if name:
            entries = HfApi().list_repo_tree(address.repo, parent or None, revision=commit, repo_type=address.kind)
            beside = {each.path: each for each in entries}
        found = beside.get(address.path)
        if name and found is None:
            known = [path.rpartition("/")[2] for path in beside]
            raise UserError(f"{address}: {parent or 'the repository'} has no {name}{did_you_mean(name, known)}")
        if isinstance(found, RepoFile):
            return {address.path: int(found.size)}
        every = HfApi().list_repo_tree(
            address.repo, address.path or None, recursive=True, revision=commit, repo_type=address.kind
        )
        return {each.path: int(each.size) for each in every if isinstance(each, RepoFile)}


def _require_leave(address: Address, ask: bool) -> None:
    if not ask:
        raise OutOfReach(f"{address}: the hub is not asked here")


def _memory(address: Address, what: str, which: str | None) -> Path:
    from huggingface_hub.constants import ENDPOINT

    return own_cache("hub") / f"{what}-{digest([ENDPOINT, address.kind, address.repo, which])}.json"


def _remembered(file: Path, key: str, kind: type) -> Any:
    with suppress(OSError, UserError, KeyError, TypeError):
        found = read_json(file)[key]
        return found if isinstance(found, kind) else None
    return None


def _cached(address: Address, error: OutOfReach) -> Listing:
    """What the hub's client has of an address, by whatever program it was downloaded. Raises UserError."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            address.repo, repo_type=address.kind, revision=address.revision, local_files_only=True, allow_patterns=[]
        )
    except Exception as missing:
        raise OutOfReach(f"{error}, and it is not in the cache of this machine") from missing
    place = Path(folder) / address.path
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    if not files:
        raise OutOfReach(f"{error}, and the cache of this machine has nothing of it")
    found = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    return Listing(address, Path(folder).name, found)


def download(found: Listing, files: Sequence[str], ask: bool = True) -> Path:
    """The folder on this machine that holds these files of a listing, under their names in the repository.

    ask: else missing ones are not downloaded.

    Raises UserError where one is missing and cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    address, folder = found.address, None
    repo, kind, commit, missing = address.repo, address.kind, found.commit, []
    for file in files:
        place = try_to_load_from_cache(repo, file, repo_type=kind, revision=commit)
        if isinstance(place, str):
            folder = _root(place, file)
        else:
            missing.append(file)
    if missing:
        _require_leave(address, ask)
    with refusals(str(address)), ThreadPoolExecutor(AT_ONCE) as pool, _bar(found, missing) as bar:

        def fetch(file: str) -> str:
            place = hf_hub_download(repo, file, repo_type=kind, revision=commit)
            bar.advance(bar.task_ids[0], found.files[file])
            return place

        try:
            for file, place in zip(missing, pool.map(fetch, missing), strict=True):
                folder = _root(place, file)
        finally:
            pool.shutdown(cancel_futures=True)
    if folder is None:
        raise UserError(f"{address} holds no file")
    return folder


def _root(place: str, file: str) -> Path:
    return Path(place).parents[file.count("/")]


def _bar(found: Listing, missing: Iterable[str]) -> Progress:
    """A bar of bytes on the terminal's error stream; none where nothing is missing."""
    total = sum(found.files[file] for file in missing)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Screen(stderr=True), disable=not total, transient=True)
    bar.add_task(f"downloading {found.address}", total=total)
    return bar
