"""From the config's `data` to the pairs of training and validation: checked, split, and cached where asked."""

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from sipo.backbones import Backbone
from sipo.config import Config
from sipo.data.cache import Cache, encode_cache
from sipo.data.check import check_pairs, default_memory
from sipo.data.dataset import CachedPairs, MediaPairs, PairDataset
from sipo.data.pairs import PairSource, open_pairs
from sipo.data.split import split_validation
from sipo.errors import UserError


@dataclass(frozen=True)
class Rows:
    """A source and those of its rows that are used."""

    source: PairSource
    usable: list[int]


@dataclass(frozen=True)
class Inputs:
    """What a training reads. `prompts`: those of held-out pairs, else of training pairs, for the sample grids."""

    train: PairDataset
    validation: PairDataset | None
    prompts: list[str]


def open_rows(config: Config, console: Console) -> tuple[Rows, Rows | None, dict[str, Any]]:
    """The rows of training, those of validation if any, and the record of what was checked and skipped.

    Raises UserError for bad rows under `on_bad_rows: stop`, and for data without rejected members where the objective
    needs them.
    """
    data = config.data
    train, checked = _checked(config, data.path, data.max_pairs, console)
    if config.loss.needs_rejected and not train.source.has_rejected:
        name = type(config.loss).__name__
        raise UserError(f"{data.path} has pairs without a rejected member; they serve loss.name: sft, not {name}")
    validation = None
    if isinstance(data.validation, str):
        validation, checked["validation"] = _checked(config, data.validation, None, console)
    elif data.validation:
        kept, held_out = split_validation(train.source, train.usable, data.validation, config.train.seed)
        train, validation = Rows(train.source, kept), Rows(train.source, held_out)
    if validation:
        validation = Rows(validation.source, validation.usable[: data.max_validation_pairs])
    return train, validation, checked


def open_inputs(
    config: Config, train: Rows, validation: Rows | None, backbone: Backbone, accelerator: Accelerator, console: Console
) -> Inputs:
    """The data sets, encoded first where the config wants a cache and there is none yet."""
    data, seed, rejected = config.data, config.train.seed, config.loss.needs_rejected
    resolution = data.resolution or backbone.resolution
    if data.cache is None:
        first: PairDataset = MediaPairs(train.source, train.usable, resolution, data.crop, data.flip,
                                        data.prompt_dropout, seed, rejected, data.max_pixels)  # fmt: skip
        second = validation and MediaPairs(validation.source, validation.usable, resolution, with_rejected=rejected,
                                           max_pixels=data.max_pixels)  # fmt: skip
    else:
        same_source = validation is not None and validation.source is train.source
        rows = sorted(train.usable + validation.usable) if validation and same_source else train.usable
        cache = _encoded(config, Rows(train.source, rows), data.cache, backbone, accelerator, console)
        first = CachedPairs(cache, train.usable, data.flip, data.prompt_dropout, seed, rejected)
        second = None
        if validation:
            if not same_source:
                cache = _encoded(config, validation, f"{data.cache}-validation", backbone, accelerator, console)
            second = CachedPairs(cache, validation.usable, with_rejected=rejected)
    shown = validation or train
    return Inputs(first, second, shown.source.prompts(shown.usable[: 50 * config.sample.num_prompts]))


def _checked(config: Config, path: str, max_pairs: int | None, console: Console) -> tuple[Rows, dict[str, Any]]:
    data = config.data
    source = open_pairs(path, data.ties, max_pairs)
    report = check_pairs(source, max_pixels=data.max_pixels, progress=not console.quiet, remember=default_memory())
    return Rows(source, report.require(data.on_bad_rows)), report.to_dict()


def _encoded(
    config: Config, rows: Rows, path: str, backbone: Backbone, accelerator: Accelerator, console: Console
) -> Cache:
    """The cache at `path`; encoded if it is missing or unfinished, refused if something else made it or it is damaged."""
    data, seed = config.data, config.train.seed
    resolution = data.resolution or backbone.resolution
    with backbone.encoders():
        encode_cache(
            backbone, rows.source, rows.usable, path, resolution, data.crop, data.flip, seed=seed,
            rank=accelerator.process_index, world_size=accelerator.num_processes, progress=not console.quiet,
        )  # fmt: skip
    cache = Cache(path)
    if accelerator.is_main_process:
        cache.verify()
    return cache
