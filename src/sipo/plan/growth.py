"""How the costs of data grow with the number of pairs: a made-up manifest and cache, read as a training reads them."""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from sipo.backbones import load_backbone
from sipo.config import Config, parse_config
from sipo.data.batches import schedule_slots
from sipo.data.cache.plan import EncodeRequest, made_by, make_plan, write_plan
from sipo.data.cache.read import Cache
from sipo.data.cache.shards import MANIFEST, write_shard
from sipo.data.dataset import CachedPairs
from sipo.data.media.encode_video import encode_png
from sipo.data.pairs.check import remember_all_usable
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.split import split_validation
from sipo.files import write_atomic
from sipo.plan.benchmark import UNDISTURBED
from sipo.plan.rehearsal import peak_of_process
from sipo.train.loop import train
from sipo.train.step import take_step
from sipo.train.table import Update
from sipo.train.training import Training

PAIRS_PER_PROMPT = 16  # Pick-a-Pic has 15
READS = 4096  # pairs that are read in the order of an epoch
MOST_LINKS = 30_000  # to one file, which file systems limit
SHARE = 0.01  # held out, to time the split


@dataclass(frozen=True)
class Growth:
    """Of one number of pairs. seconds: by part, of the processor, which other programs change little; memory: bytes that the
    process of a second start has held until its first update."""

    num_pairs: int
    seconds: dict[str, float]
    memory: int


PARTS = {  # of `Growth.seconds` -> what it is called
    "open": "open the manifest, s",
    "stamp": "one pass over it: stamp, prompts, s",
    "split": "split, s",
    "cache": "open the cache, s",
    "verify": "compare all checksums, s",
    "pair": "a cached pair, µs",
    "first start": "first start to first update, s",
    "second start": "second start to first update, s",
    "elapsed": "the same by the clock, s",
}


def measure_growth(raw: dict[str, Any], counts: Sequence[int], console: Console) -> list[Growth]:
    """For each number of pairs, make them in a temporary folder and time what a training does with them.

    `raw` is a config as YAML gives it; its model, size, batch and policy are used, its data are replaced. Every figure is of
    a process of its own, which starts with nothing in memory.
    """
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            with console.status(f"making {count:,} pairs"):
                _alone(make_data, raw, Path(folder), count)
            with console.status(f"reading {count:,} pairs"):
                seconds = _alone(time_parts, raw, Path(folder))
                seconds["first start"], *_ = _alone(first_update, raw, Path(folder), "first")
                begin = time.time()
                seconds["second start"], end, memory = _alone(first_update, raw, Path(folder), "second")
                seconds["elapsed"] = end - begin
            found.append(Growth(count, seconds, memory))
    return found


def render(found: Sequence[Growth], console: Console) -> None:
    """A column a number of pairs."""
    table = Table(title="growth with the number of pairs", title_justify="left")
    table.add_column("")
    for growth in found:
        table.add_column(f"{growth.num_pairs:,}", justify="right")
    for part, name in PARTS.items():
        scale = 1e6 if part == "pair" else 1
        table.add_row(name, *(f"{scale * growth.seconds[part]:,.3g}" for growth in found))
    table.add_row("memory at the first update, MB", *(f"{growth.memory / 1e6:,.0f}" for growth in found))
    console.print(table)


def _config(raw: dict[str, Any], folder: Path, run: str) -> Config:
    """One step on the made-up data, without samples, validation and extra logs."""
    data = {
        **raw["data"],
        "path": str(folder / "pairs.jsonl"),
        "cache": str(folder / "cache"),
        "validation": SHARE,
        "noise": "drawn",
    }
    settings = {**raw.get("train", {}), **UNDISTURBED, "num_steps": 1, "keep_best": None}
    return parse_config(
        {**raw, "run": str(folder / run), "data": data, "train": settings, "log": {"tensorboard": False}}
    )


def make_data(raw: dict[str, Any], folder: Path, count: int) -> None:
    """A manifest whose pictures are links to a few files, the record that all of it was checked, and a cache of noise."""
    config, original = _config(raw, folder, "making"), folder
    picture = encode_png(Image.fromarray(np.zeros((8, 8, 3), np.uint8)))
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as manifest:
        for row in range(count):
            place = f"media/{row // 1000:05d}"
            if row % 1000 == 0:
                (folder / place).mkdir(parents=True)
            if row % (MOST_LINKS // 2) == 0:
                original = folder / f"{row}.png"
                original.write_bytes(picture)
            names = {member: f"{place}/{row:07d}-{member}.png" for member in ("chosen", "rejected")}
            for name in names.values():
                os.link(original, folder / name)
            prompt = (
                f"a picture of number {row // PAIRS_PER_PROMPT}, as people describe it: with a red cube and two balls"
            )
            manifest.write(json.dumps({"prompt": prompt, **names}) + "\n")
    compute = config.train.compute_dtype
    backbone = load_backbone(config.model, "cpu", compute, encoders=False, size=config.data.size)
    source = open_pairs(folder / "pairs.jsonl", config.data.ties)
    remember_all_usable(source, folder / "home" / "sipo" / "checks", config.data.max_pixels, backbone.size)
    request = EncodeRequest(
        source, list(range(count)), backbone.size, config.data.crop, config.data.flip, config.train.seed
    )
    with backbone.encoders():
        moments = backbone.encode_media(torch.zeros(1, *backbone.size.pixel_shape)).float()[0]
        texts = {name: text[0] for name, text in backbone.encode_prompts([""]).items()}
    _make_cache(request, made_by(backbone.fingerprint(), request), moments, texts, folder / "cache")


def _make_cache(
    request: EncodeRequest, made: dict[str, Any], moments: torch.Tensor, texts: dict[str, torch.Tensor], out: Path
) -> None:
    orientations = 2 if request.flip else 1
    plan = make_plan(made, request, 2 * orientations * moments.nbytes, sum(text.nbytes for text in texts.values()))
    write_plan(out, plan)
    checksums = {}
    for name in plan.shards:
        items = plan.contents(name)
        n = len(items)
        if name in plan.text_shards:
            tensors = {key: text.expand(n, *text.shape).clone() for key, text in texts.items()}
            metadata = None
        else:
            tensors = {"strength": torch.ones(n)}
            for member in ("chosen", "rejected"):
                tensors[member] = torch.randn(n, orientations, *moments.shape)
                tensors[f"{member}_geometry"] = torch.full((n, orientations, 4), 8.0)
            metadata = {"ids": json.dumps([request.source.id(row) for row in items])}
        content = safetensors.torch.save(tensors, metadata)
        write_shard(out, name, content)
        checksums[name] = json.loads((out / f"{name}.seal").read_text("utf-8"))
    write_atomic(out / MANIFEST, json.dumps({"made_by": made, "shards": checksums}, indent=1))


def time_parts(raw: dict[str, Any], folder: Path) -> dict[str, float]:
    """What a training does with the data before its first step, and a cached pair."""
    config, seconds = _config(raw, folder, "parts"), {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        seconds[name] = time.process_time() - begin
        return result

    source = timed("open", lambda: open_pairs(config.data.path))
    timed("stamp", lambda: source.stamp)
    usable = list(range(len(source)))
    train_rows, _ = timed("split", lambda: split_validation(source, usable, SHARE, config.train.seed))
    cache = timed("cache", lambda: Cache(str(config.data.cache)))
    timed("verify", cache.verify)
    pairs = CachedPairs(cache, train_rows, config.data.flip, config.data.prompt_dropout, config.train.seed)
    slots = schedule_slots(len(pairs), config.train.seed, 0, min(READS, len(pairs)))
    for slot in slots:  # what is opened once
        _ = pairs[slot]
    timed("pair", lambda: [pairs[slot] for slot in slots])
    seconds["pair"] /= len(slots)
    return seconds


def first_update(raw: dict[str, Any], folder: Path, run: str) -> tuple[float, float, int]:
    """Processor's seconds of a process, imports included, until its training has made its first step; when; its memory."""
    seen: list[tuple[float, float, int]] = []

    def step(t: Training, number: int, stop: bool) -> Update:
        update = take_step(t, number, stop)
        seen.append((time.process_time(), time.time(), peak_of_process()))
        return update

    train(_config(raw, folder, run), Console(quiet=True), step)
    return seen[0]


def _alone(work: Callable[..., Any], raw: dict[str, Any], folder: Path, *more: Any) -> Any:
    """`work(raw, folder, *more)` in a new process that remembers checks in the folder."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "home")
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, raw, folder, *more).result()
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
