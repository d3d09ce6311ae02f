"""The files of a cache: a plan, safetensors shards with a checksum each, and a manifest, written last.

plan.json                     made_by, the rows, the distinct prompts, the prompt of each row
text-00000.safetensors        one tensor (n, ...) per kind of conditioning, up to 128 prompts; prompt 0 is the empty one
pairs-00000.safetensors       up to 512 pairs: chosen, rejected (n, orientations, 2, ...); chosen_geometry,
                              rejected_geometry (n, orientations, 4), their micro-conditioning; strength (n,); of data with
                              sources source.NAME (n, orientations, ...), what the model reads of them, and empty source.NAME,
                              the same with the empty prompt, where a text encoder sees sources and prompts are dropped;
                              header: ids
<shard>.seal                  its sha256 and size: a shard with this file is finished
<shard>.part-0000             pairs of one that is not, as in the shard (`parts`)
manifest.json                 made_by and all checksums; a cache without it is not complete

A shard holds fewer where its content is large: about 256 MB at most, or a single pair. With `data.cache_dtype`, moments, and
what a shard's header lists under "float32", are stored in half precision, and read as float32.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor

from sipo.data.cache.parts import EncodedPairs
from sipo.data.cache.plan import CacheType
from sipo.data.media.pictures import to_floats
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.jsonl import read_json, read_object

MANIFEST = "manifest.json"
SOURCE = "source."  # before the names of what the model reads of sources
EMPTY = "empty source."  # before those of what it reads of them with the empty prompt, where prompts are dropped
FLOAT32 = "float32"  # in a header: the names of tensors that are stored in half precision and read as float32


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

    def encode_source(self, pixels: Tensor, prompts: list[str]) -> dict[str, Tensor]:
        """(B, 3, H, W) in [-1, 1], and the prompts of their pairs -> what the model reads of sources, (B, ...) each.
        Called for data with sources alone."""
        ...

    def fingerprint(self) -> dict[str, str]: ...

    def nonfinite_weight(self) -> str | None:
        """A weight that is NaN or infinite, named; None where there is none."""
        ...


@dataclass(frozen=True)
class DecodedPair:
    id: str
    strength: float
    pixels: Tensor  # uint8, (members, 3, H, W) or (members, F, 3, H, W): chosen and, where there is one, rejected
    micro_conditioning: Tensor  # (members, 2, 4): see `Crop.micro_conditioning`
    prompt: str
    source: Tensor | None  # uint8, (3, H, W)


@torch.no_grad()
def text_shard(backbone: Encoder, batches: Iterable[list[str]], dtype: CacheType = "float32") -> bytes:
    """The content of a shard of prompts. Raises UserError that names those of which the text encoders make NaN or infinity."""
    encoded, prompts = [], []
    for batch in batches:
        encoded.append(backbone.encode_prompts(batch))
        prompts += [prompt[:60] or "the empty prompt" for prompt in batch]
    tensors = {name: torch.cat([batch[name].cpu() for batch in encoded]).contiguous() for name in encoded[0]}
    advice = "Half precision overflows in some: use bf16 or fp32"
    for tensor in tensors.values():
        _require_finite(backbone, "the text encoders give", "prompts", tensor, prompts, advice)
    tensors, metadata = narrowed(tensors, dtype)
    return safetensors.torch.save(tensors, metadata)


@torch.no_grad()
def encode_pairs(
    backbone: Encoder,
    batches: Iterable[list[DecodedPair]],
    flip: bool,
    dtype: CacheType = "float32",
    empty_prompts: bool = False,
) -> EncodedPairs:
    """What a shard holds of these pairs: of their sources with `empty_prompts` as well, see `EncodeRequest`.

    Raises UserError that names the pairs of which the encoders make NaN or infinity.
    """
    pairs: list[tuple[str, float, Tensor]] = []
    moments: list[Tensor] = []
    sources: list[dict[str, Tensor]] = []
    for batch in batches:
        pairs += [(pair.id, pair.strength, pair.micro_conditioning[:, : 2 if flip else 1]) for pair in batch]
        pixels = torch.stack(
            [pair.pixels for pair in batch], dim=1
        )  # (members, B, 3, H, W), of videos (members, B, F, ...)
        views = _orientations(pixels, flip)
        encoded = [torch.stack([backbone.encode_media(member).float().cpu() for member in view]) for view in views]
        moments.append(torch.stack(encoded, dim=2))  # (members, B, orientations, 2, ...)
        if pictures := [pair.source for pair in batch if pair.source is not None]:
            read = {SOURCE: [pair.prompt for pair in batch], **({EMPTY: [""] * len(batch)} if empty_prompts else {})}
            sources.append({})
            for prefix, prompts in read.items():
                seen = [backbone.encode_source(view, prompts) for view in _orientations(torch.stack(pictures), flip)]
                stacked = {name: torch.stack([each[name].cpu() for each in seen], dim=1) for name in seen[0]}
                sources[-1] |= {prefix + name: tensor for name, tensor in stacked.items()}
    ids, strengths, conditionings = zip(*pairs, strict=True)
    members = torch.cat(moments, dim=1)
    advice = "SDXL's VAE does in fp16: use fp32, or madebyollin/sdxl-vae-fp16-fix"
    for member in members:
        _require_finite(backbone, "the VAE gives", "pairs", member, ids, advice)
    moments_of = {name: latents.contiguous() for name, latents in zip(("chosen", "rejected"), members, strict=False)}
    of_sources = {name: torch.cat([each[name] for each in sources]) for name in (sources or [{}])[0]}
    for tensor in of_sources.values():
        _require_finite(backbone, "the encoders give", "sources", tensor, ids, advice)
    tensors, _ = narrowed(moments_of, dtype)
    of_sources, header = narrowed(of_sources, dtype)
    tensors |= of_sources
    for name, crops in zip(moments_of, torch.stack(conditionings, dim=1), strict=True):
        tensors[f"{name}_geometry"] = crops.contiguous()
    tensors["strength"] = torch.tensor(strengths)
    return EncodedPairs(tensors, list(ids), header or {})


def _orientations(pixels: Tensor, flip: bool) -> list[Tensor]:
    """Pixels in uint8 as float32, as they are and, where data is flipped, mirrored."""
    media = to_floats(pixels)
    return [media, media.flip(-1)] if flip else [media]


def narrowed(tensors: dict[str, Tensor], dtype: CacheType) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """The tensors, those of float32 in `dtype`; and for the header, their names, so that they are read as float32.

    Raises UserError for numbers that float16 cannot hold.
    """
    wide = [name for name, tensor in tensors.items() if tensor.dtype == torch.float32 and dtype != "float32"]
    if not wide:
        return dict(tensors), None
    stored = {name: tensors[name].to(getattr(torch, dtype)) for name in wide}
    beyond = [name for name in wide if not stored[name].isfinite().eq(tensors[name].isfinite()).all()]
    if beyond:
        raise UserError(
            f"data.cache_dtype: {dtype} holds numbers up to 65,504, and there are larger ones in {', '.join(beyond)}; use bfloat16"
        )
    return tensors | stored, {FLOAT32: json.dumps(wide)}


def _require_finite(backbone: Encoder, who: str, what: str, tensor: Tensor, names: Sequence[str], advice: str) -> None:
    """Raises UserError with the rows (n, ...) that are not finite, and with the weight that is to blame, if one is."""
    finite = tensor.isfinite().reshape(len(tensor), -1).all(1).tolist()
    broken = [name for name, sound in zip(names, finite, strict=True) if not sound]
    if broken:
        cause = backbone.nonfinite_weight()
        why = f"{cause}: replace the file" if cause else advice
        raise UserError(f"{who} NaN or infinity for {len(broken):,} {what} ({', '.join(broken[:5])}). {why}")


def write_shard(path: Path, name: str, content: bytes) -> None:
    """The shard, then its checksum. Removes what a process left that was killed while it wrote this very shard."""
    for stale in path.glob(f".{name}.*.tmp"):
        stale.unlink(missing_ok=True)
    write_atomic(path / name, content)
    checksum = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_atomic(path / f"{name}.seal", json.dumps(checksum))


def read_checksum(path: Path, name: str) -> dict[str, Any] | None:
    """The SHA-256 and the size of a finished shard; None where it is still to be encoded."""
    try:
        checksum = read_json(path / f"{name}.seal")
        return checksum if _is_checksum(checksum) and (path / name).stat().st_size == checksum["bytes"] else None
    except (OSError, UserError):
        return None


def read_manifest(path: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What `read_checksum` gives, of all `names`, the shards of a cache whose encoding is finished, from its manifest.

    Raises UserError for a manifest that is damaged.
    """
    advice = f"Delete {MANIFEST} and run `sipo data encode` again: what is intact is kept"
    shards = read_object(path / MANIFEST, ["made_by", "shards"], advice)["shards"]
    if not isinstance(shards, dict) or shards.keys() != set(names) or not all(map(_is_checksum, shards.values())):
        raise UserError(f"{path / MANIFEST} is damaged: its shards are not those of the cache's plan. {advice}")
    return shards


def _is_checksum(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("bytes"), int) and isinstance(found.get("sha256"), str)
