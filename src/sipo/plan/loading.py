"""Pairs a second of a config's own data: decoded for every step, encoded once, read from the cache; by number of workers."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sipo.backbones import read_architecture
from sipo.config import Config, parse_config
from sipo.data.dataset import PairDataset
from sipo.errors import UsageError
from sipo.losses import D3PO
from sipo.plan.benchmark import UNDISTURBED
from sipo.processes import Processes, join_processes
from sipo.tables import markdown_table
from sipo.train.inputs import open_inputs, open_rows
from sipo.train.opening import micro_batches, open_backbone, process_settings


@dataclass(frozen=True)
class Rates:
    """Pairs a second with so many loader workers. What starts them counts for encoding alone, which does it once."""

    workers: int
    decoded: float
    encoded: float
    cached: float


def measure_loading(raw: dict[str, Any], num_pairs: int, workers: Sequence[int], console: Console) -> list[Rates]:
    """Decode, encode and read the first `num_pairs` pairs of the config `raw` (as YAML gives it), into temporary caches.

    The pairs are checked first, so their files are in the machine's memory by then. Raises UserError for pairs that a training
    would refuse, UsageError for fewer of them than two steps take, and for d3po.
    """
    data = {**raw["data"], "max_pairs": num_pairs, "validation": None, "noise": "drawn", "cache": None}
    config = parse_config(
        {
            **raw,
            "data": data,
            "train": {**raw.get("train", {}), **UNDISTURBED, "keep_best": None, "gradient_accumulation": 1},
        }
    )
    if isinstance(config.loss, D3PO):
        raise UsageError(
            "loss.name: d3po reads trajectories, which are neither encoded nor cached; measure another config"
        )
    quiet = Console(quiet=True)
    with join_processes() as processes, process_settings(config.train, processes.device):
        architecture = read_architecture(config.model)
        rows, _, _ = open_rows(config, architecture, console)
        if len(rows.usable) < 2 * config.train.batch_size:
            raise UsageError(
                f"{len(rows.usable)} usable pairs are no two steps of {config.train.batch_size}: give more pairs"
            )
        backbone = open_backbone(config, architecture)
        found = []
        for count in workers:
            with console.status(f"{count} workers"), tempfile.TemporaryDirectory() as folder:

                def opened(cache: str | None, count: int = count) -> PairDataset:
                    its = replace(config, data=replace(config.data, cache=cache, workers=count))
                    return open_inputs(its, rows, None, backbone, processes, quiet).train

                decoded = rate(opened(None), config, processes, count)
                begin = time.perf_counter()
                cached = opened(str(Path(folder) / "cache"))
                encoded = len(rows.encodable) / (time.perf_counter() - begin)
                found.append(Rates(count, decoded, encoded, rate(cached, config, processes, count)))
    return found


def rate(pairs: PairDataset, config: Config, processes: Processes, workers: int) -> float:
    """Pairs a second over one epoch, from the first step's to the last."""
    settings = replace(config.train, num_steps=len(pairs) // config.train.batch_size)
    batches = micro_batches(pairs, settings, 0, processes, workers)
    next(batches)
    begin, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch.ids)
    return count / (time.perf_counter() - begin)


def render(found: Sequence[Rates]) -> str:
    """A row a number of workers."""
    columns = ["data.workers", "decoded", "encoded", "cached"]
    lines = [
        [str(each.workers), *(f"{value:,.1f}" for value in (each.decoded, each.encoded, each.cached))] for each in found
    ]
    return "pairs a second\n" + markdown_table(columns, lines, left=[])
