"""Encode a data set once: pictures to the VAE's moments, prompts to text embeddings; resumable, by many processes."""

import json
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

from sipo.data.draws import draw
from sipo.data.media import MAX_PIXELS, load_pixels
from sipo.data.rows import BadRow, PairSource
from sipo.data.shards import (
    MANIFEST,
    PAIRS_PER_SHARD,
    PLAN,
    Plan,
    made_by,
    make_plan,
    read_plan,
    read_seal,
    require_same,
    write_plan,
    write_shard,
)
from sipo.errors import UserError
from sipo.files import write_atomic

PATIENCE = 3600.0  # seconds without a new shard from the other processes before giving up on them


class Encoder(Protocol):
    """The part of a backbone that encoding needs."""

    def encoders(self) -> AbstractContextManager[None]:
        """Holds the VAE and the text encoders in memory while the context lasts; they are not needed outside it."""
        ...

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        """Text embeddings as the pipeline passes them, (B, ...) each."""
        ...

    def encode_media(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 2, C, h, w) float32: mean and log-variance."""
        ...

    def fingerprint(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Encodable:
    id: str
    strength: float
    pixels: Tensor  # (members, 3, R, R): chosen and, where there is one, rejected


@dataclass(frozen=True)
class Pixels:
    """Rows decoded with the crop that the cache will hold."""

    source: PairSource
    resolution: int
    crop: str
    seed: int
    max_pixels: int

    def __getitem__(self, row: int) -> Encodable:
        try:
            pair = self.source[row]
            position = draw(self.seed, 0, pair.id, False, 0.0).crop if self.crop == "random" else (0.5, 0.5)
            members = [pair.chosen] if pair.rejected is None else [pair.chosen, pair.rejected]
            pixels = [load_pixels(media, self.resolution, position, False, self.max_pixels) for media in members]
        except BadRow as error:
            raise UserError(f"{self.source.id(row)}: {error}. Has the data changed since `sipo data check`?") from error
        return Encodable(pair.id, pair.strength, torch.stack(pixels))


def encode_cache(
    backbone: Encoder,
    source: PairSource,
    usable: list[int],
    out: str | Path,
    resolution: int,
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
) -> None:
    """Encode the rows `usable` of `source` into the folder `out`, which `Cache` then opens.

    Run again after an interruption, it goes on: finished shards are never encoded again. With several processes, each
    calls this with its own `rank` and encodes every `world_size`-th shard; all return when the cache is complete.
    flip: encode both orientations. crop "random": the crop of a pair is drawn here, once for all epochs.

    Raises UserError where `out` holds a cache made by something else, where a picture fails to decode (with its row),
    and where the VAE gives a NaN or an infinity (with the pairs).
    """
    out = Path(out)
    if not usable:
        raise UserError("there is no usable pair to encode")
    made = made_by(backbone.fingerprint(), source, usable, resolution, crop, flip, seed)
    plan = _begin(out, made, source, usable, pairs_per_shard)
    own = plan.shards[rank::world_size]
    todo = [name for name in own if read_seal(out, name) is None]
    pixels = Pixels(source, resolution, crop, seed, max_pixels)
    with _progress(progress and rank == 0) as bar, backbone.encoders() if todo else nullcontext():
        sizes = {name: len(plan.contents(name)) for name in own}
        left = sum(sizes[name] for name in todo)
        task = bar.add_task("encoding", total=sum(sizes.values()), completed=sum(sizes.values()) - left)
        for name in todo:
            for stale in out.glob(f".{name}.*.tmp"):  # a process that was killed in the middle of this very shard
                stale.unlink(missing_ok=True)
            if name in plan.text_shards:
                batches = chunks([plan.prompts[n] for n in plan.contents(name)], batch_size)
                content = _encode_text(backbone, counted(batches, bar, task))
            else:
                batches = chunks([plan.rows[n] for n in plan.contents(name)], batch_size)
                loader = DataLoader(pixels, batch_sampler=batches, num_workers=num_workers, collate_fn=list)
                content = _encode_pairs(backbone, counted(loader, bar, task), flip)
            write_shard(out, name, content)
    _finish(out, made, plan.shards, rank)


def chunks(values: list, size: int) -> list[list]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def counted(batches: Iterable[list], bar: Progress, task: TaskID) -> Iterator[list]:
    for batch in batches:
        yield batch
        bar.advance(task, len(batch))


def _begin(out: Path, made: dict[str, Any], source: PairSource, usable: list[int], pairs_per_shard: int) -> Plan:
    """The plan of an earlier start, or a new one. Every process makes the same, so it does not matter who writes it."""
    if (out / PLAN).exists():
        plan = read_plan(out)
        require_same(plan.made_by, made, out)
        return plan
    strangers = [file.name for file in out.glob("[!.]*")] if out.exists() else []
    if strangers and not (out / PLAN).exists():  # asked again: another process may have begun since
        raise UserError(f"{out} holds other files and no cache: choose a folder of its own")
    plan = make_plan(made, source, usable, pairs_per_shard)
    write_plan(out, plan)
    return plan


@torch.no_grad()
def _encode_text(backbone: Encoder, batches: Iterable[list[str]]) -> bytes:
    encoded = [backbone.encode_prompts(prompts) for prompts in batches]
    tensors = {name: torch.cat([batch[name].cpu() for batch in encoded]).contiguous() for name in encoded[0]}
    return safetensors.torch.save(tensors)


@torch.no_grad()
def _encode_pairs(backbone: Encoder, batches: Iterable[list[Encodable]], flip: bool) -> bytes:
    ids: list[str] = []
    strengths: list[float] = []
    moments: list[Tensor] = []
    for items in batches:
        ids += [item.id for item in items]
        strengths += [item.strength for item in items]
        pictures = torch.stack([item.pixels for item in items], dim=1)  # (members, B, 3, R, R)
        views = [pictures, pictures.flip(-1)] if flip else [pictures]
        encoded = [torch.stack([backbone.encode_media(member).float().cpu() for member in view]) for view in views]
        moments.append(torch.stack(encoded, dim=2))  # (members, B, orientations, 2, C, h, w)
    both = torch.cat(moments, dim=1)
    finite = both.isfinite().all(0).flatten(1).all(1).tolist()
    broken = [id for id, sound in zip(ids, finite, strict=True) if not sound]
    if broken:
        raise UserError(
            f"the VAE gives NaN or infinity for {len(broken)} pairs ({', '.join(broken[:5])}). SDXL's VAE does in "
            "fp16: use fp32, or madebyollin/sdxl-vae-fp16-fix"
        )
    tensors = {"chosen": both[0].contiguous(), "strength": torch.tensor(strengths)}
    if len(both) == 2:
        tensors["rejected"] = both[1].contiguous()
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
