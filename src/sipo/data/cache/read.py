"""Reading a cache: latents and text embeddings that `encode_cache` wrote, checked, and fetched pair by pair."""

import contextlib
import itertools
import json
import os
from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from torch import Tensor

from sipo.data.cache.plan import read_plan
from sipo.data.cache.shards import EMPTY, FLOAT32, MANIFEST, SOURCE, read_manifest
from sipo.data.media.load import Member
from sipo.errors import DiskFull, UserError
from sipo.files import hash_file, write_atomic
from sipo.jsonl import read_object

VERIFIED = "verified.json"  # shard -> its sha256, size and times when its bytes were compared with its checksum
OPEN_SHARDS = 16_384  # mapped at the same time, of the 65,530 maps that Linux grants a process


@dataclass(frozen=True)
class CachedSample:
    """members: chosen and, if there is one, rejected: moments (orientations, 2, ...) float32, mean and log-variance, and
    micro-conditioning (orientations, 4); orientation 1 is mirrored. prompt: for `Cache.conditioning`; 0 is the empty one.
    source: what the model reads of the pair's source, (orientations, ...) each, in the dtype that it was encoded in; nothing in
    data without sources.
    empty_source: the same with the empty prompt, where a text encoder reads both; nothing elsewhere.
    """

    id: str
    prompt: int
    members: list[Member]
    strength: float
    source: dict[str, Tensor]
    empty_source: dict[str, Tensor]


@dataclass(frozen=True)
class Shard:
    """A mapped file: no byte of its tensors is read before it is used. ids: one after the other, with where each ends."""

    tensors: dict[str, Tensor]
    ids: str
    ends: array
    halved: frozenset[str]  # the names of those that are read as float32

    def id(self, row: int) -> str:
        return self.ids[self.ends[row - 1] if row else 0 : self.ends[row]]


class Cache:
    """An encoded data set. Opening checks that it is complete and every file has its size; `verify` reads every byte.

    Files are opened when first needed, so a Cache can be handed to loader workers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / MANIFEST).exists():
            begun = " (encoding was not finished: run `sipo data encode` again)" if self.path.exists() else ""
            raise UserError(f"there is no complete cache in {self.path}{begun}")
        self.plan = read_plan(self.path)
        self.made_by: dict[str, Any] = self.plan.made_by
        self.checksums = read_manifest(self.path, self.plan.shards)
        self.orientations = 2 if self.made_by["flip"] else 1
        self._open: dict[str, Shard] = {}
        for name, checksum in self.checksums.items():
            file = self.path / name
            size = file.stat().st_size if file.exists() else None
            if size != checksum["bytes"]:
                what = "is missing" if size is None else f"has {size:,} bytes instead of {checksum['bytes']:,}"
                raise self._damaged(name, what)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return len(self.plan.rows)

    def verify(self) -> None:
        """Compare every shard with its checksum (reads the whole cache). Raises UserError that names damaged ones."""
        self.refuse(self.damaged(self.checksums))

    def unverified(self) -> dict[str, list]:
        """The shards that have not been found sound, or were touched since, with what `remember` wants to know of them."""
        known = self._known()
        now = {name: self._state(name) for name in self.checksums}
        return {name: state for name, state in now.items() if known.get(name) != state}

    def damaged(self, names: Iterable[str]) -> list[str]:
        """Those that do not match their checksums. Reads them whole."""
        names = list(names)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:  # hashing leaves Python's lock
            hashes = pool.map(lambda name: hash_file(self.path / name), names)
            return [
                name for name, hashed in zip(names, hashes, strict=True) if hashed != self.checksums[name]["sha256"]
            ]

    def refuse(self, damaged: Sequence[str]) -> None:
        """Raises UserError that names the shards, if there are any."""
        if damaged:
            raise self._damaged(damaged[0], f"does not match its checksum ({len(damaged)} such: {', '.join(damaged)})")

    def remember(self, sound: dict[str, list]) -> None:
        """Shards of `unverified` that were found sound are not read for that again, while size and times stay."""
        if sound:
            with contextlib.suppress(OSError, DiskFull):  # the folder may be read-only
                write_atomic(self.path / VERIFIED, json.dumps(self._known() | sound))

    def _known(self) -> dict[str, list]:
        try:
            return read_object(self.path / VERIFIED)
        except (OSError, UserError):
            return {}

    def _state(self, name: str) -> list:
        """The time of the last change too: it tells a file whose time of modification was put back, and a copy."""
        found = (self.path / name).stat()
        return [self.checksums[name]["sha256"], found.st_size, found.st_mtime_ns, found.st_ctime_ns]

    def positions(self, rows: Sequence[int]) -> np.ndarray:
        """Where rows of the source stand in the cache, (len(rows),). Raises KeyError for one that was not encoded."""
        encoded, wanted = np.asarray(self.plan.rows, np.int64), np.asarray(rows, np.int64)
        order = np.argsort(encoded, kind="stable")
        found = order[np.searchsorted(encoded, wanted, sorter=order).clip(max=len(encoded) - 1)]
        if (missing := encoded[found] != wanted).any():
            raise KeyError(int(wanted[missing][0]))
        return found

    def position(self, row: int) -> int:
        """As `positions`, of one row."""
        return int(self.positions([row])[0])

    def get(self, position: int) -> CachedSample:
        number, within = divmod(position, self.plan.pairs_per_shard)
        shard = self._shard(self.plan.pair_shards[number])
        members = [
            Member(shard.tensors[name][within].float(), shard.tensors[f"{name}_geometry"][within])
            for name in ("chosen", "rejected")
            if name in shard.tensors
        ]
        strength = shard.tensors["strength"][within].item()
        source, empty = (
            {
                key.removeprefix(prefix): tensor[within].float() if key in shard.halved else tensor[within]
                for key, tensor in shard.tensors.items()
                if key.startswith(prefix)
            }
            for prefix in (SOURCE, EMPTY)
        )
        return CachedSample(shard.id(within), self.plan.prompt_of[position], members, strength, source, empty)

    def prompt(self, number: int) -> str:
        return self.plan.prompts[number]

    def conditioning(self, number: int) -> dict[str, Tensor]:
        """The text embeddings of a prompt, each without the batch dimension, in the dtype they were encoded with."""
        place, within = divmod(number, self.plan.prompts_per_shard)
        shard = self._shard(self.plan.text_shards[place])
        found = {key: texts[within] for key, texts in shard.tensors.items()}
        return {key: text.float() if key in shard.halved else text for key, text in found.items()}

    def _shard(self, name: str) -> Shard:
        if name not in self._open:
            while len(self._open) >= OPEN_SHARDS:
                del self._open[next(iter(self._open))]
            try:
                with safetensors.safe_open(str(self.path / name), framework="pt") as file:
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dictionary
                    header = file.metadata() or {}
                    ids, halved = (json.loads(header.get(key, "[]")) for key in ("ids", FLOAT32))
            except (safetensors.SafetensorError, OSError) as error:
                raise self._damaged(name, f"cannot be read ({error})") from error
            self._open[name] = Shard(
                tensors, "".join(ids), array("q", itertools.accumulate(map(len, ids))), frozenset(halved)
            )
        return self._open[name]

    def _damaged(self, name: str, what: str) -> UserError:
        return UserError(
            f"the cache {self.path} is damaged: {name} {what}. Delete {name} and run `sipo data encode` again: "
            "what is intact is kept."
        )
