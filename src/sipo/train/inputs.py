"""From the config's `data` to the pairs of training and validation: checked, split, and cached where asked."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from sipo.backbones import Architecture, Backbone
from sipo.backbones.backbone import CPU_BATCH
from sipo.config import Config
from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import EncodeRequest
from sipo.data.cache.read import Cache
from sipo.data.dataset import CachedPairs, MediaPairs, PairDataset, open_trajectories
from sipo.data.media.kinds import MediaFile
from sipo.data.noise import SampledNoise, sampled_noise
from sipo.data.pairs.check import check_pairs, default_memory
from sipo.data.pairs.hub import Fetched, fetch_pairs
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.data.pairs.split import split_validation
from sipo.errors import UserError
from sipo.hub.address import is_address
from sipo.losses import D3PO
from sipo.processes import Processes
from sipo.samples.trajectory import trajectory_settings
from sipo.size import Size

TOGETHER = 8  # shards that a process hashes at once, in threads


@dataclass(frozen=True)
class Rows:
    """A source, the rows of it that are used here, and all that could be (what a cache holds, however it is split).

    hub: where they come from, if that is the hub. noise: what the used rows' members were sampled from, where they are trained with it.
    """

    source: PairSource
    usable: list[int]
    encodable: list[int]
    noise: SampledNoise | None = None
    hub: Fetched | None = None

    @property
    def seeds(self) -> np.ndarray | None:
        return self.noise.seeds if self.noise else None


@dataclass(frozen=True)
class Inputs:
    """What a training reads. `prompts`: the first of held-out pairs, else of training pairs, for the sample grids, each with
    the source of its first pair, if pairs have sources."""

    train: PairDataset
    validation: PairDataset | None
    prompts: dict[str, MediaFile | None]


def open_rows(config: Config, architecture: Architecture, console: Console) -> tuple[Rows, Rows | None, dict[str, Any]]:
    """The rows of training, those of validation if any, and the record of what was checked and skipped.

    Raises UserError for bad rows under `on_bad_rows: stop`, for data without sources for a model that reads them, and with
    sources for another, for data without rejected members where the objective needs them, and for members whose noise is not
    known with `data.noise: sampled`.
    """
    data, size = config.data, architecture.size(config.data.size)
    train, checked = _checked(config, architecture, data.path, data.max_pairs, console)
    if config.loss.needs_rejected and not train.source.has_rejected:
        name = type(config.loss).__name__
        raise UserError(f"{data.path} has pairs without a rejected member; they serve loss.name: sft, not {name}")
    if data.label_smoothing and not config.loss.needs_rejected:
        raise UserError(
            "data.label_smoothing: this objective compares no pairs, so it has no labels to smooth; remove it"
        )
    validation = None
    if isinstance(data.validation, str):
        validation, checked["validation"] = _checked(config, architecture, data.validation, None, console)
    elif data.validation:
        kept, held_out = split_validation(train.source, train.usable, data.validation, config.train.seed)
        train, validation = replace(train, usable=kept), replace(train, usable=held_out)
    if validation and len(validation.usable) > data.max_validation_pairs:
        # Spread over the file, whose beginning may be of one kind.
        chosen = np.linspace(0, len(validation.usable) - 1, data.max_validation_pairs).round().astype(int)
        validation = replace(validation, usable=[validation.usable[i] for i in chosen])
    if data.noise == "sampled":
        train, validation = (
            with_noise(config, train, size, console),
            validation and with_noise(config, validation, size),
        )
        if validation and train.noise and validation.noise and train.noise.dtype != validation.noise.dtype:
            raise UserError("data.validation: its samplers drew noise in another dtype than those of data.path")
    return train, validation, checked


def with_noise(config: Config, rows: Rows, size: Size, console: Console | None = None) -> Rows:
    """The rows with the noise of their members; a console is told where another model drew them. Raises UserError."""
    found = sampled_noise(rows.source, rows.usable, size, 2 if config.loss.needs_rejected else 1)
    others = [name for name in found.models if name != config.model.path]
    if console and others:
        text = f"data.noise: members were sampled by {', '.join(others)}; the path from their noise is that of {config.model.path}"
        console.print(Text.assemble(("notice: ", "yellow"), text))
    return replace(rows, noise=found)


def open_inputs(
    config: Config, train: Rows, validation: Rows | None, backbone: Backbone, processes: Processes, console: Console
) -> Inputs:
    """The data sets, encoded first where the config wants a cache and there is none yet."""
    data, seed, rejected, size = config.data, config.train.seed, config.loss.needs_rejected, backbone.size
    first: PairDataset
    second: PairDataset | None = None
    if isinstance(config.loss, D3PO):
        settings = trajectory_settings(config.kernel, config.num_inference_steps, config.sample.guidance_scale)
        first = open_trajectories(train.source, train.usable, settings, size.picture)
    elif data.cache is None:
        first = MediaPairs(train.source, train.usable, size, data.crop, data.flip, data.prompt_dropout, seed,
                           rejected, data.max_pixels, train.seeds)  # fmt: skip
        if validation:
            second = MediaPairs(validation.source, validation.usable, size, with_rejected=rejected,
                                max_pixels=data.max_pixels, seeds=validation.seeds)  # fmt: skip
    else:
        cache = _encoded(config, train, data.cache, backbone, processes, console)
        first = CachedPairs(cache, train.usable, data.flip, data.prompt_dropout, seed, rejected, train.seeds)
        if validation:
            if validation.source is not train.source:
                cache = _encoded(config, validation, f"{data.cache}-validation", backbone, processes, console)
            second = CachedPairs(cache, validation.usable, with_rejected=rejected, seeds=validation.seeds)
    shown, keep = validation or train, config.train.keep_best
    num_prompts = max(config.sample.num_prompts, keep.num_prompts if keep else 0)
    return Inputs(first, second, first_prompts(shown, num_prompts))


def first_prompts(rows: Rows, number: int) -> dict[str, MediaFile | None]:
    """At most so many distinct prompts, in order, each with the source of its first pair."""
    usable, first = rows.usable[: 50 * number], {}
    for row, prompt in zip(usable, rows.source.prompts(usable), strict=True):
        first.setdefault(prompt, row)
    return {
        prompt: rows.source[row].source if rows.source.has_source else None
        for prompt, row in itertools.islice(first.items(), number)
    }


def _checked(
    config: Config, architecture: Architecture, path: str, max_pairs: int | None, console: Console
) -> tuple[Rows, dict[str, Any]]:
    data = config.data
    hub = fetch_pairs(path, max_pairs) if is_address(path) else None
    source = open_pairs(hub.place if hub else path, data.ties, max_pairs)
    require_source(architecture, path, source)
    size = architecture.size(data.size)
    report = check_pairs(
        source, max_pixels=data.max_pixels, progress=not console.quiet, remember=default_memory(), size=size
    )
    usable = report.require(data.on_bad_rows)
    if report.flat:
        console.print(Text.assemble(("notice: ", "yellow"), f"{path}: {report.notice()}"))
    record = report.to_dict()
    if hub:
        console.print(Text.assemble(("hub: ", "bold"), f"{hub.address} at commit {hub.commit}"))
        record["hub"] = hub.to_dict()
    return Rows(source, usable, usable, hub=hub), record


def require_source(architecture: Architecture, path: str, source: PairSource) -> None:
    """Raises UserError for pairs without sources and a model that reads them, and for pairs with sources and another."""
    name = architecture.family.name
    if architecture.takes_source and not source.has_source:
        raise UserError(
            f"{path}: its pairs have no source, the picture that members are made of, which a {name} reads; add the column "
            "source to a manifest or a table with prompt and chosen"
        )
    if source.has_source and not architecture.takes_source:
        raise UserError(
            f"{path}: its pairs have a source, the picture that members are made of, and a {name} reads none; remove or "
            "rename the column, or train a model that reads one"
        )


def _encoded(
    config: Config, rows: Rows, path: str, backbone: Backbone, processes: Processes, console: Console
) -> Cache:
    """The cache at `path`; encoded if it is missing or unfinished, refused if something else made it or it is damaged."""
    data, seed = config.data, config.train.seed
    request = EncodeRequest(
        rows.source,
        rows.encodable,
        backbone.size,
        data.crop,
        data.flip,
        seed,
        data.max_pixels,
        num_workers=data.workers,
        dtype=data.cache_dtype,
        empty_prompts=bool(data.prompt_dropout) and backbone.architecture.mixes_source(backbone.size),
        **({"batch_bytes": CPU_BATCH} if backbone.device.type == "cpu" else {}),
    )
    encode_cache(backbone, request, path, processes, None if console.quiet else console)
    cache = Cache(path)
    verify(cache, processes)
    return cache


def verify(cache: Cache, processes: Processes) -> None:
    """Processes share the shards that are new or were touched since they were found sound, and read them whole.

    Raises UserError that names damaged ones.
    """
    new = cache.unverified()
    names, damaged = list(new), []
    for some in processes.share([names[start : start + TOGETHER] for start in range(0, len(names), TOGETHER)]):
        damaged += cache.damaged(some)
    cache.refuse(damaged)  # the other processes end with this reason
    processes.barrier()
    if processes.is_main:
        cache.remember(new)
