"""Encode a data set once: media to the VAE's moments, prompts to text embeddings; resumable, by all processes."""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch.utils.data import DataLoader, Dataset

from sipo.data.cache.parts import EncodedPairs, joined, portions, read_parts, remove_parts, write_part
from sipo.data.cache.plan import PLAN, CachePlan, EncodeRequest, made_by, make_plan, read_plan, require_same, write_plan
from sipo.data.cache.shards import (
    MANIFEST,
    DecodedPair,
    Encoder,
    encode_pairs,
    narrowed,
    read_checksum,
    text_shard,
    write_shard,
)
from sipo.data.draws import draw_augmentation
from sipo.data.media.load import load_bytes
from sipo.data.pairs.load import load_pair
from sipo.data.workers import end_with_parent, worker_errors
from sipo.errors import UserError
from sipo.files import room_in, write_atomic
from sipo.jsonl import read_object
from sipo.processes import ALONE, Processes, batches

T = TypeVar("T")


def encode_cache(
    backbone: Encoder,
    request: EncodeRequest,
    out: str | Path,
    processes: Processes = ALONE,
    console: Console | None = None,
) -> None:
    """Encode what `request` describes into the folder `out`, which `Cache` then opens. A console shows a progress bar.

    Run it again after an interruption to resume: what was kept, of finished shards and others, is not encoded again. All
    `processes` call it, each encodes its share of the shards that are missing, and all return when the cache is complete.

    Raises UserError where `out` holds a cache made by something else, where a member fails to decode (with its row),
    and where the VAE gives a NaN or an infinity (with the pairs).
    """
    out = Path(out)
    if not request.usable:
        raise UserError("there is no usable pair to encode")
    made = made_by(backbone.fingerprint(), request)
    if _is_complete(out, made):
        return
    plan = _existing_plan(out, made)
    with room_in(out, kept=lambda: _finished(out)), ExitStack() as stack:
        if plan is None or _unfinished(out, plan.shards):
            stack.enter_context(backbone.encoders())
        if plan is None:
            plan = make_plan(made, request, *_item_bytes(backbone, request))
            write_plan(out, plan)
        todo = _unfinished(out, plan.shards)
        processes.barrier()  # all know what is missing before one of them adds to it
        total = plan.num_items(plan.shards)
        with processes.progress(console, "encoding", total, total - plan.num_items(todo)) as advance:
            _encode_shards(backbone, request, out, plan, todo[processes.rank :: processes.world], advance)
    if processes.is_main:
        checksums = {name: read_checksum(out, name) for name in plan.shards}
        write_atomic(out / MANIFEST, json.dumps({"made_by": made, "shards": checksums}, indent=1))
    processes.barrier()


def _is_complete(out: Path, made: dict[str, Any]) -> bool:
    """Whether this was encoded and every shard has its size; no shard is opened."""
    try:
        manifest = read_object(out / MANIFEST, ["made_by", "shards"])
        sizes = {name: checksum["bytes"] for name, checksum in manifest["shards"].items()}
        return manifest["made_by"] == made and all((out / name).stat().st_size == sizes[name] for name in sizes)
    except (OSError, UserError, KeyError, TypeError, AttributeError):
        return False


def _finished(out: Path) -> str:
    """What a full disk leaves."""
    plan = read_plan(out) if (out / PLAN).exists() else None
    if plan is None:
        return "Nothing is encoded yet"
    return f"{len(plan.shards) - len(_unfinished(out, plan.shards))} of {len(plan.shards)} shards are whole and kept"


def _existing_plan(out: Path, made: dict[str, Any]) -> CachePlan | None:
    """The plan of an earlier start; None in a new folder. Every process would make the same, whoever writes it first."""
    if (out / PLAN).exists():
        plan = read_plan(out)
        require_same(plan.made_by, made, out)
        return plan
    others = [file.name for file in out.glob("[!.]*")] if out.exists() else []
    if others and not (out / PLAN).exists():  # asked again: another process may have begun since
        raise UserError(f"{out} holds other files and no cache: choose a folder of its own")
    return None


def _unfinished(out: Path, shards: list[str]) -> list[str]:
    return [name for name in shards if read_checksum(out, name) is None]


@torch.no_grad()
def _item_bytes(backbone: Encoder, request: EncodeRequest) -> tuple[int, int]:
    """What a pair and a prompt take, found by encoding one of each: black, and the empty prompt."""
    moments = backbone.encode_media(torch.zeros(1, *request.size.pixel_shape)).float()
    texts, _ = narrowed(backbone.encode_prompts([""]), request.dtype)
    moments = narrowed({"moments": moments}, request.dtype)[0]["moments"]
    pair = moments.nbytes * (2 if request.source.has_rejected else 1)
    if request.source.has_source:
        source = backbone.encode_source(torch.zeros(1, *request.size.picture.pixel_shape), [""])
        of_source = sum(tensor.nbytes for tensor in narrowed(source, request.dtype)[0].values())
        pair += of_source * (2 if request.empty_prompts else 1)
    return pair * (2 if request.flip else 1), sum(text.nbytes for text in texts.values())


def _encode_shards(
    backbone: Encoder,
    request: EncodeRequest,
    out: Path,
    plan: CachePlan,
    todo: list[str],
    advance: Callable[[int], None],
) -> None:
    """One shard after another. Workers decode ahead, across shards, which are dealt out beforehand for that."""
    texts = set(plan.text_shards)
    at_once = max(min(request.batch_size, request.batch_bytes // (4 * math.prod(request.size.pixel_shape))), 1)

    def kept(name: str) -> list[EncodedPairs]:
        return read_parts(out, name, (request.source.id(plan.rows[n]) for n in plan.contents(name)))

    rows: dict[str, list[Sequence[int]]] = {}
    for name in todo:
        if name not in texts:
            done = sum(len(part.ids) for part in kept(name))
            advance(done)
            rows[name] = batches([plan.rows[n] for n in plan.contents(name)][done:], at_once)
    decoded = _decode(request, list(itertools.chain(*rows.values())))
    with worker_errors():
        for name in todo:
            if name in texts:
                prompts = batches([plan.prompts[n] for n in plan.contents(name)], request.batch_size)
                write_shard(out, name, text_shard(backbone, _counted(prompts, advance), request.dtype))
                continue
            parts, pairs = kept(name), _counted(itertools.islice(decoded, len(rows[name])), advance)
            on_disk = len(parts)
            for portion in portions(pairs, request.keep_every):
                if len(parts) > on_disk:  # the one before; the last one goes into the shard at once
                    write_part(out, name, on_disk, parts[on_disk])
                    on_disk += 1
                parts.append(encode_pairs(backbone, portion, request.flip, request.dtype, request.empty_prompts))
            write_shard(out, name, joined(parts).content())
            remove_parts(out, name)


def _decode(request: EncodeRequest, rows: list[Sequence[int]]) -> Iterator[list[DecodedPair]]:
    """The batches of rows, decoded by the loader's workers."""
    yield from DataLoader(
        _Decoded(request),
        batch_sampler=rows,  # pyright: ignore[reportArgumentType]  # any sequences of rows
        num_workers=request.num_workers,
        collate_fn=list,
        worker_init_fn=end_with_parent,
    )


@dataclass(frozen=True)
class _Decoded(Dataset[DecodedPair]):
    """Rows decoded with the crop that the cache will hold, for loader workers."""

    request: EncodeRequest

    def __getitem__(self, row: int) -> DecodedPair:
        request = self.request
        drawn = draw_augmentation(request.seed, 0, request.source.id(row), False, 0.0)
        pair, members, source = load_pair(
            request.source, row, request.size, request.crop, drawn, True, request.max_pixels, load_bytes
        )
        pixels, conditioning = (torch.stack(tensors) for tensors in zip(*members, strict=True))
        return DecodedPair(pair.id, pair.strength, pixels, conditioning, pair.prompt, source)


def _counted(made: Iterable[Sequence[T]], advance: Callable[[int], None]) -> Iterator[list[T]]:
    for batch in made:
        yield list(batch)
        advance(len(batch))
