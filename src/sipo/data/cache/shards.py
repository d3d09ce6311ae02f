"""The files of a cache: a plan (what goes where), safetensors shards with a seal each, and a manifest, written last.

plan.json                     made_by, the rows, the distinct prompts, the prompt of each row
text-00000.safetensors        one tensor (n, ...) per kind of conditioning, up to 128 prompts; prompt 0 is the empty one
pairs-00000.safetensors       up to 512 pairs: chosen, rejected (n, orientations, 2, ...); chosen_geometry,
                              rejected_geometry (n, orientations, 4); strength (n,); header: ids
<shard>.seal                  its sha256 and size: a shard with a seal is finished
manifest.json                 made_by and all seals; a cache without it is not complete

A shard holds fewer than that where its content is large: about `SHARD_BYTES` at most, or a single pair.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sipo.data.pairs.fingerprint import digest
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.size import Size

FORMAT = 2  # of these files; 1 had no geometry
PAIRS_PER_SHARD = 512
PROMPTS_PER_SHARD = 128
SHARD_BYTES = 256_000_000
PLAN, MANIFEST = "plan.json", "manifest.json"


def made_by(
    backbone: dict[str, str], source: PairSource, usable: list[int], size: Size, crop: str, flip: bool, seed: int
) -> dict[str, Any]:
    """What determines a cache's content.

    backbone: the backbone's `fingerprint()`. seed: matters to a random crop alone.
    """
    frames = {"num_frames": size.num_frames, "fps": size.fps} if size.is_video else {}
    return {
        "format": FORMAT,
        **{f"model.{name}": value for name, value in backbone.items()},
        "height": size.height,
        "width": size.width,
        **frames,
        "crop": crop,
        "crop seed": seed if crop == "random" else None,
        "flip": flip,
        "data": source.fingerprint,
        "usable pairs": len(usable),
        "usable rows": digest(usable),
    }


def require_format(found: dict[str, Any], path: Path) -> None:
    """Raises UserError for a cache that another version of this package wrote in another way."""
    if found.get("format", 1) != FORMAT:
        raise UserError(
            f"the cache {path} was written by another version of sipo (format {found.get('format', 1)}; this one reads "
            f"{FORMAT}). Encode into another folder, or delete it"
        )


def require_same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raises UserError that names every difference between what made the cache and what is asked of it."""
    require_format(found, path)
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        lines = "\n".join(f"  {name}: {found.get(name)} in the cache, {wanted.get(name)} here" for name in names)
        raise UserError(
            f"the cache {path} was made by something else:\n{lines}\nEncode into another folder, or delete it"
        )


@dataclass(frozen=True)
class Plan:
    """Which rows and prompts a cache holds, in order, so that every process can find its own share."""

    made_by: dict[str, Any]
    rows: list[int]
    prompts: list[str]  # distinct; the first is ""
    prompt_of: list[int]  # per row, an index into `prompts`
    pairs_per_shard: int
    prompts_per_shard: int

    @property
    def text_shards(self) -> list[str]:
        return [f"text-{n:05d}.safetensors" for n in range(-(-len(self.prompts) // self.prompts_per_shard))]

    @property
    def pair_shards(self) -> list[str]:
        return [f"pairs-{n:05d}.safetensors" for n in range(-(-len(self.rows) // self.pairs_per_shard))]

    @property
    def shards(self) -> list[str]:
        return [*self.text_shards, *self.pair_shards]

    def contents(self, shard: str) -> range:
        """The positions in `prompts` or `rows` that this shard holds."""
        kind, number = shard.removesuffix(".safetensors").split("-")
        size = self.prompts_per_shard if kind == "text" else self.pairs_per_shard
        total = len(self.prompts if kind == "text" else self.rows)
        return range(int(number) * size, min((int(number) + 1) * size, total))


def make_plan(
    made: dict[str, Any], source: PairSource, usable: list[int], pairs_per_shard: int, prompts_per_shard: int
) -> Plan:
    texts = source.prompts(usable)
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(["", *texts]))}
    return Plan(
        made, list(usable), list(numbers), [numbers[text] for text in texts], pairs_per_shard, prompts_per_shard
    )


def read_plan(path: Path) -> Plan:
    try:
        return Plan(**json.loads((path / PLAN).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a cache that can be read ({PLAN}: {error})") from error


def write_plan(path: Path, plan: Plan) -> None:
    write_atomic(path / PLAN, json.dumps(asdict(plan)))


def write_shard(path: Path, name: str, content: bytes) -> None:
    """The shard, and then its seal."""
    write_atomic(path / name, content)
    seal = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_atomic(path / f"{name}.seal", json.dumps(seal))


def read_seal(path: Path, name: str) -> dict[str, Any] | None:
    """The seal of a finished shard; None where it is still to be encoded."""
    try:
        seal = json.loads((path / f"{name}.seal").read_text("utf-8"))
        return seal if (path / name).stat().st_size == seal["bytes"] else None
    except (OSError, ValueError, KeyError):
        return None


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
