"""Reading a cache: latents and text embeddings that `encode_cache` wrote, checked, and fetched pair by pair."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from sipo.data.cache.plan import read_plan, require_format
from sipo.data.cache.shards import MANIFEST
from sipo.data.media.load import Member
from sipo.errors import UserError
from sipo.files import hash_file

OPEN_SHARDS = 128  # mapped at the same time; of large videos a cache has many


@dataclass(frozen=True)
class CachedSample:
    """members: chosen and, if there is one, rejected: moments (orientations, 2, ...) float32, mean and log-variance, and
    micro-conditioning (orientations, 4); orientation 1 is mirrored. prompt: for `Cache.conditioning`; 0 is the empty one.
    """

    id: str
    prompt: int
    members: list[Member]
    strength: float


class Cache:
    """An encoded data set. Opening checks that it is complete and every file has its size; `verify` reads every byte.

    Files are opened when first needed, so a Cache can be handed to loader workers.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / MANIFEST).exists():
            begun = " (encoding was not finished: run `sipo data encode` again)" if self.path.exists() else ""
            raise UserError(f"there is no complete cache in {self.path}{begun}")
        try:
            manifest = json.loads((self.path / MANIFEST).read_text("utf-8"))
            self.made_by: dict[str, Any] = manifest["made_by"]
            self.checksums: dict[str, dict[str, Any]] = manifest["shards"]
        except (ValueError, KeyError) as error:
            raise UserError(f"{self.path / MANIFEST} is damaged ({error}): run `sipo data encode` again") from error
        require_format(self.made_by, self.path)
        self.plan = read_plan(self.path)
        self.orientations = 2 if self.made_by["flip"] else 1
        self._positions = {row: position for position, row in enumerate(self.plan.rows)}
        self._open: dict[str, Any] = {}
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
        damaged = [name for name, made in self.checksums.items() if hash_file(self.path / name) != made["sha256"]]
        if damaged:
            raise self._damaged(damaged[0], f"does not match its checksum ({len(damaged)} such: {', '.join(damaged)})")

    def position(self, row: int) -> int:
        """Where a row of the source stands in the cache. Raises KeyError for a row that was not encoded."""
        return self._positions[row]

    def get(self, position: int) -> CachedSample:
        name = self.plan.pair_shards[position // self.plan.pairs_per_shard]
        within = position % self.plan.pairs_per_shard
        shard, keys, ids = self._shard(name)
        members = [
            Member(self._row(shard, name, within), self._row(shard, f"{name}_geometry", within))
            for name in ("chosen", "rejected")
            if name in keys
        ]
        strength = self._row(shard, "strength", within).item()
        return CachedSample(ids[within], self.plan.prompt_of[position], members, strength)

    def prompt(self, number: int) -> str:
        return self.plan.prompts[number]

    def conditioning(self, number: int) -> dict[str, Tensor]:
        """The text embeddings of a prompt, each without the batch dimension, in the dtype they were encoded with."""
        shard, keys, _ = self._shard(self.plan.text_shards[number // self.plan.prompts_per_shard])
        return {key: self._row(shard, key, number % self.plan.prompts_per_shard) for key in keys}

    @staticmethod
    def _row(shard: Any, key: str, row: int) -> Tensor:
        return shard.get_slice(key)[row : row + 1][0]

    def _shard(self, name: str) -> tuple[Any, list[str], list[str]]:
        if name not in self._open:
            while len(self._open) >= OPEN_SHARDS:
                del self._open[next(iter(self._open))]
            try:
                shard = safetensors.safe_open(str(self.path / name), framework="pt")
            except (safetensors.SafetensorError, OSError) as error:
                raise self._damaged(name, f"cannot be read ({error})") from error
            self._open[name] = shard, list(shard.keys()), json.loads((shard.metadata() or {}).get("ids", "[]"))
        return self._open[name]

    def _damaged(self, name: str, what: str) -> UserError:
        return UserError(
            f"the cache {self.path} is damaged: {name} {what}. Delete {name} and run `sipo data encode` again: "
            "what is intact is kept."
        )
