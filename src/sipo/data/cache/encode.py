"""Encode a data set once: media to the VAE's moments, prompts to text embeddings; resumable, by many processes."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.utils.data import DataLoader

from sipo.data.media.crop import CENTER
from sipo.data.draws import draw
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import MAX_PIXELS
from sipo.data.pairs.rows import BadRow, PairSource
from sipo.data.cache.shards import (
    MANIFEST,
    PAIRS_PER_SHARD,
    PLAN,
    PROMPTS_PER_SHARD,
    SHARD_BYTES,
    Plan,
    made_by,
    make_plan,
    read_plan,
    read_seal,
    require_same,
    write_plan,
    write_shard,
)
from sipo.data.workers import end_with_parent
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.size import Size

PATIENCE = 3600.0  # seconds without a new shard from the other processes before giving up on them
BATCH_BYTES = 128_000_000  # of the pixels that are encoded at once, whatever the batch size (but one item at least)


class Encoder(Protocol):
    """The part of a backbone that encoding needs."""

    def encoders(self) -> AbstractContextManager[None]:
        """Holds the VAE and the text encoders in memory while the context lasts; they are not needed outside it."""
        ...

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        """Text embeddings as the pipeline passes them, (B, ...) each."""
        ...

    def encode_media(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) or (B, F, 3, H, W) in [-1, 1] -> (B, 2, ...) float32: mean and log-variance."""
        ...

    def fingerprint(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Encodable:
    id: str
    strength: float
    pixels: Tensor  # (members, 3, H, W) or (members, F, 3, H, W): chosen and, where there is one, rejected
    geometry: Tensor  # (members, 2, 4): see `Cut.geometry`


@dataclass(frozen=True)
class Pixels:
    """Rows decoded with the crop that the cache will hold."""

    source: PairSource
    size: Size
    crop: str
    seed: int
    max_pixels: int

    def __getitem__(self, row: int) -> Encodable:
        try:
            pair = self.source[row]
            position = draw(self.seed, 0, pair.id, False, 0.0).crop if self.crop == "random" else CENTER
            members = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
            loaded = [load_pixels(media, self.size, position, self.max_pixels) for media in members]
        except BadRow as error:
            raise UserError(f"{self.source.id(row)}: {error}. Has the data changed since `sipo data check`?") from error
        pixels, geometry = (torch.stack(tensors) for tensors in zip(*loaded, strict=True))
        return Encodable(pair.id, pair.strength, pixels, geometry)


def encode_cache(
    backbone: Encoder,
    source: PairSource,
    usable: list[int],
    out: str | Path,
    size: Size,
    crop: str = "center",
    flip: bool = False,
    batch_size: int = 8,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
    num_workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    pairs_per_shard: int = PAIRS_PER_SHARD,
    prompts_per_shard: int = PROMPTS_PER_SHARD,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Encode the rows `usable` of `source` into the folder `out`, which `Cache` then opens.

    Run again after an interruption, it goes on: finished shards are never encoded again. With several processes, each
    calls this with its own `rank` and encodes every `world_size`-th shard; all return when the cache is complete.
    flip: encode both orientations. crop "random": the crop of a pair is drawn here, once for all epochs.
    pairs_per_shard, prompts_per_shard: at most; fewer where a shard would pass `shard_bytes`.

    Raises UserError where `out` holds a cache made by something else, where a member fails to decode (with its row),
    and where the VAE gives a NaN or an infinity (with the pairs).
    """
    out = Path(out)
    if not usable:
        raise UserError("there is no usable pair to encode")
    made = made_by(backbone.fingerprint(), source, usable, size, crop, flip, seed)
    plan = _known_plan(out, made)
    idle = plan is not None and not _missing(out, plan, rank, world_size)
    with _progress(progress and rank == 0) as bar, nullcontext() if idle else backbone.encoders():
        if plan is None:
            pairs, prompts = shard_sizes(backbone, size, flip, source.has_rejected, shard_bytes)
            plan = make_plan(made, source, usable, min(pairs, pairs_per_shard), min(prompts, prompts_per_shard))
            write_plan(out, plan)
        todo = _missing(out, plan, rank, world_size)
        total, left = (
            sum(len(plan.contents(name)) for name in names) for names in (plan.shards[rank::world_size], todo)
        )
        task = bar.add_task("encoding", total=total, completed=total - left)
        pixels = Pixels(source, size, crop, seed, max_pixels)
        at_once = max(min(batch_size, BATCH_BYTES // (4 * math.prod(size.pixel_shape))), 1)
        for name in todo:
            for stale in out.glob(f".{name}.*.tmp"):  # a process that was killed in the middle of this very shard
                stale.unlink(missing_ok=True)
            if name in plan.text_shards:
                batches = chunks([plan.prompts[n] for n in plan.contents(name)], batch_size)
                content = _encode_text(backbone, counted(batches, bar, task))
            else:
                batches = chunks([plan.rows[n] for n in plan.contents(name)], at_once)
                loader = DataLoader(pixels, batch_sampler=batches, num_workers=num_workers, collate_fn=list,
                                    worker_init_fn=end_with_parent)  # fmt: skip
                content = _encode_pairs(backbone, counted(loader, bar, task), flip)
            write_shard(out, name, content)
    _finish(out, made, plan.shards, rank)


def shard_sizes(backbone: Encoder, size: Size, flip: bool, has_rejected: bool, shard_bytes: int) -> tuple[int, int]:
    """How many pairs and how many prompts fit into a shard: what one of each takes is found by encoding it.

    What is encoded (black, and the empty prompt) does not matter, so every process finds the same.
    """
    with torch.no_grad():
        moments = backbone.encode_media(torch.zeros(1, *size.pixel_shape)).float()
        texts = backbone.encode_prompts([""])
    pair = moments.nbytes * (2 if flip else 1) * (2 if has_rejected else 1)
    prompt = sum(text.nbytes for text in texts.values())
    return max(shard_bytes // pair, 1), max(shard_bytes // prompt, 1)


def _missing(out: Path, plan: Plan, rank: int, world_size: int) -> list[str]:
    return [name for name in plan.shards[rank::world_size] if read_seal(out, name) is None]


def chunks(values: list, size: int) -> list[list]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def counted(batches: Iterable[list], bar: Progress, task: TaskID) -> Iterator[list]:
    for batch in batches:
        yield batch
        bar.advance(task, len(batch))


def _known_plan(out: Path, made: dict[str, Any]) -> Plan | None:
    """The plan of an earlier start; None in a new folder. Every process would make the same, whoever writes it first."""
    if (out / PLAN).exists():
        plan = read_plan(out)
        require_same(plan.made_by, made, out)
        return plan
    strangers = [file.name for file in out.glob("[!.]*")] if out.exists() else []
    if strangers and not (out / PLAN).exists():  # asked again: another process may have begun since
        raise UserError(f"{out} holds other files and no cache: choose a folder of its own")
    return None


@torch.no_grad()
def _encode_text(backbone: Encoder, batches: Iterable[list[str]]) -> bytes:
    encoded = [backbone.encode_prompts(prompts) for prompts in batches]
    tensors = {name: torch.cat([batch[name].cpu() for batch in encoded]).contiguous() for name in encoded[0]}
    return safetensors.torch.save(tensors)


@torch.no_grad()
def _encode_pairs(backbone: Encoder, batches: Iterable[list[Encodable]], flip: bool) -> bytes:
    items: list[tuple[str, float]] = []
    geometry: list[Tensor] = []
    moments: list[Tensor] = []
    for batch in batches:
        items += [(item.id, item.strength) for item in batch]
        geometry += [item.geometry[:, : 2 if flip else 1] for item in batch]
        media = torch.stack([item.pixels for item in batch], dim=1)  # (members, B, 3, H, W) or (members, B, F, 3, H, W)
        views = [media, media.flip(-1)] if flip else [media]
        encoded = [torch.stack([backbone.encode_media(member).float().cpu() for member in view]) for view in views]
        moments.append(torch.stack(encoded, dim=2))  # (members, B, orientations, 2, ...)
    both, cuts = torch.cat(moments, dim=1), torch.stack(geometry, dim=1)  # cuts: (members, n, orientations, 4)
    ids, strengths = zip(*items, strict=True)
    finite = both.isfinite().all(0).flatten(1).all(1).tolist()
    broken = [id for id, sound in zip(ids, finite, strict=True) if not sound]
    if broken:
        raise UserError(
            f"the VAE gives NaN or infinity for {len(broken)} pairs ({', '.join(broken[:5])}). SDXL's VAE does in "
            "fp16: use fp32, or madebyollin/sdxl-vae-fp16-fix"
        )
    tensors = {"strength": torch.tensor(strengths)}
    for member, latents, cut in zip(("chosen", "rejected"), both, cuts, strict=False):
        tensors |= {member: latents.contiguous(), f"{member}_geometry": cut.contiguous()}
    return safetensors.torch.save(tensors, metadata={"ids": json.dumps(ids)})


def _finish(out: Path, made: dict[str, Any], shards: list[str], rank: int) -> None:
    """Rank 0 waits for the shards of all processes and writes the manifest; the others wait for the manifest."""
    waited, missing = time.monotonic(), len(shards)
    while True:
        seals = {name: seal for name in shards if (seal := read_seal(out, name)) is not None}
        if len(seals) == len(shards) and (rank == 0 or read_manifest(out) == {"made_by": made, "shards": seals}):
            break
        if len(shards) - len(seals) != missing:
            waited, missing = time.monotonic(), len(shards) - len(seals)
        if time.monotonic() - waited > PATIENCE:
            raise UserError(
                f"{missing} shards of {out} are missing, and none is being added: run the same command again"
            )
        time.sleep(0.2)
    if rank == 0:
        write_atomic(out / MANIFEST, json.dumps({"made_by": made, "shards": seals}, indent=1))


def read_manifest(out: Path) -> dict[str, Any] | None:
    try:
        return json.loads((out / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _progress(show: bool) -> Progress:
    text = TextColumn("{task.description}")
    return Progress(
        text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), disable=not show
    )
