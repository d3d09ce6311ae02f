"""What a cache shall hold, what determines its content, and which of its files holds what."""

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sipo.data.draws import CropMode
from sipo.data.media.pictures import MAX_PIXELS
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError, shown
from sipo.files import digest, write_atomic
from sipo.jsonl import read_object
from sipo.size import Size

FORMAT = 2  # of the files; 1 had no micro-conditioning
PLAN = "plan.json"
ADVICE = "Delete the cache and run `sipo data encode` again"
CacheType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class EncodeRequest:
    """The rows `usable` of `source`, at one size.

    crop: with "random", the crop of a pair is drawn once, for all epochs, from `seed`. flip: encode both orientations.
    dtype: of what would be stored in float32. batch_size and num_workers (which decode) do not change the content.
    pairs_per_shard, prompts_per_shard: at most; fewer where a shard would exceed `shard_bytes`, but one at least.
    batch_bytes: of the pixels that are encoded at once, whatever the batch size, but one item at least.
    keep_every: seconds after which what is encoded of an unfinished shard is kept. empty_prompts: encode sources with the
    empty prompt as well, for models whose text encoder reads both, where prompts are dropped.
    """

    source: PairSource
    usable: list[int]
    size: Size
    crop: CropMode = "center"
    flip: bool = False
    seed: int = 0
    max_pixels: int = MAX_PIXELS
    batch_size: int = 8
    num_workers: int = 0
    dtype: CacheType = "float32"
    pairs_per_shard: int = 512
    prompts_per_shard: int = 128
    shard_bytes: int = 256_000_000
    batch_bytes: int = 128_000_000
    keep_every: float = 30.0
    empty_prompts: bool = False


def made_by(backbone: dict[str, str], request: EncodeRequest) -> dict[str, Any]:
    """What determines a cache's content. backbone: its `fingerprint()`."""
    size, crop = request.size, request.crop
    frames = {"num_frames": size.num_frames, "fps": size.fps} if size.is_video else {}
    return {
        "format": FORMAT,
        **{f"model.{name}": value for name, value in backbone.items()},
        "height": size.height,
        "width": size.width,
        **frames,
        "crop": crop,
        "crop seed": request.seed if crop == "random" else None,
        "flip": request.flip,
        **({} if request.dtype == "float32" else {"stored in": request.dtype}),
        **({"empty prompts": True} if request.empty_prompts else {}),
        "data": request.source.fingerprint,
        "usable pairs": len(request.usable),
        "usable rows": digest(request.usable),
    }


def require_format(found: dict[str, Any], path: Path) -> None:
    """Raises UserError for a cache whose files another version of this package wrote differently."""
    if found.get("format", 1) != FORMAT:
        raise UserError(
            f"the cache {path} was written by another version of sipo (format {found.get('format', 1)}; this one reads "
            f"{FORMAT}). Encode into another folder, or delete it"
        )


def require_same(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Raises UserError that names every difference between what made the cache and what is wanted."""
    require_format(found, path)
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        lines = "\n".join(f"  {name}: {found.get(name)} in the cache, {wanted.get(name)} here" for name in names)
        raise UserError(
            f"the cache {path} was made by something else:\n{lines}\nEncode into another folder, or delete it"
        )


@dataclass(frozen=True)
class CachePlan:
    """The rows and prompts of a cache, in order, so that every process can find its own shards."""

    made_by: dict[str, Any]
    rows: Sequence[int]
    prompts: list[str]  # distinct; the first is ""
    prompt_of: Sequence[int]  # per row, an index into `prompts`
    pairs_per_shard: int
    prompts_per_shard: int

    @cached_property
    def text_shards(self) -> list[str]:
        return [f"text-{n:05d}.safetensors" for n in range(-(-len(self.prompts) // self.prompts_per_shard))]

    @cached_property
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

    def num_items(self, shards: list[str]) -> int:
        return sum(len(self.contents(shard)) for shard in shards)


def make_plan(made: dict[str, Any], request: EncodeRequest, pair_bytes: int, prompt_bytes: int) -> CachePlan:
    """pair_bytes, prompt_bytes: what one of each takes in a shard; a prompt may take nothing."""
    texts = request.source.prompts(request.usable)
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(["", *texts]))}
    pairs, prompts = (max(request.shard_bytes // max(size, 1), 1) for size in (pair_bytes, prompt_bytes))
    return CachePlan(
        made_by=made,
        rows=list(request.usable),
        prompts=list(numbers),
        prompt_of=[numbers[text] for text in texts],
        pairs_per_shard=min(pairs, request.pairs_per_shard),
        prompts_per_shard=min(prompts, request.prompts_per_shard),
    )


def read_plan(path: Path) -> CachePlan:
    """The plan in the cache's folder. Raises UserError for one that is damaged, or of another version."""
    saved = read_object(path / PLAN, ["made_by"], ADVICE)
    if isinstance(saved["made_by"], dict):
        require_format(saved["made_by"], path)
    try:
        numbers = {name: array("q", saved[name]) for name in ("rows", "prompt_of")}
        plan = CachePlan(**{**saved, **numbers})
    except (TypeError, OverflowError) as error:
        raise UserError(f"{path / PLAN} is damaged ({error}). {ADVICE}") from error
    if wrong := _inconsistency(plan):
        raise UserError(f"{path / PLAN} is damaged: {wrong}. {ADVICE}")
    return plan


def _inconsistency(plan: CachePlan) -> str | None:
    """What of a plan cannot be as it is."""
    sizes = (plan.pairs_per_shard, plan.prompts_per_shard)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return f"its shards hold {shown(sizes)} pairs and prompts"
    if not isinstance(plan.made_by, dict) or not isinstance(plan.made_by.get("flip"), bool):
        return f"made_by is {shown(plan.made_by, 60)}, and does not tell whether pictures are flipped"
    if not isinstance(plan.prompts, list) or not all(isinstance(prompt, str) for prompt in plan.prompts):
        return "its prompts are not a list of texts"
    if len(plan.rows) != len(plan.prompt_of):
        return f"it has {len(plan.rows)} rows and the prompts of {len(plan.prompt_of)}"
    if len(plan.rows) and not 0 <= min(plan.prompt_of) <= max(plan.prompt_of) < len(plan.prompts):
        return f"rows have prompts beyond its {len(plan.prompts)}"
    return None


def write_plan(path: Path, plan: CachePlan) -> None:
    saved = {field.name: getattr(plan, field.name) for field in fields(plan)}
    write_atomic(path / PLAN, json.dumps(saved))
