"""`sipo data profile`, phase by phase; each finds what an earlier, killed call has left, and continues there. In its folder:

profile.html             the page
profile.json             its numbers, and a line a measured pair
work/data-*/             what depends on the data: the marks of all media, files of the measured pairs, scorers' scores
work/base-*/             what depends on the base and the draws: the encoded pairs, their errors, and in own-*/ the same of
                         samples that the base drew for their prompts
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sipo.backbones import Architecture, read_architecture
from sipo.backbones.opening import Opened, open_weights
from sipo.config import Config
from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import EncodeRequest
from sipo.data.cache.read import Cache
from sipo.data.dataset import CachedPairs
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.errors import UsageError
from sipo.evaluate.scores.score import score
from sipo.files import digest, room_in, write_atomic
from sipo.jsonl import dump_jsonl
from sipo.processes import ALONE, Processes
from sipo.profile.duplicates import clusters
from sipo.profile.errors import Probe, measure
from sipo.profile.page import write_page
from sipo.profile.pictures import MediaFiles, mark_pairs
from sipo.profile.results import (
    Measured,
    agreement_record,
    duplicates_record,
    errors_record,
    labels_record,
    leaks_record,
    models_record,
    pairs_record,
    rounded,
    unlike_record,
)
from sipo.profile.unlike import Errors
from sipo.samples.folder import PromptItem, Sample, read_samples
from sipo.samples.generate import generate
from sipo.scorers.choice import ScorerChoice
from sipo.train.fit import require_fit
from sipo.train.identity import sampled
from sipo.train.inputs import Rows, open_rows
from sipo.train.policy import start_folder

THRESHOLD = 0.9  # below which the paper prunes, for objectives that do not


@dataclass(frozen=True)
class ProfileRequest:
    """num_pairs: of which errors and scores are measured, evenly spread over the data. num_draws: of timestep and noise for
    each. num_own: samples that the base draws for comparison. benchmarks: their prompts by name."""

    config: Config
    out: Path
    num_pairs: int = 256
    num_draws: int = 8
    num_own: int = 64
    scorers: ScorerChoice = field(default_factory=ScorerChoice)
    benchmarks: Mapping[str, Sequence[str]] = field(default_factory=dict)


def profile(request: ProfileRequest, console: Console, processes: Processes = ALONE) -> dict[str, Any] | None:
    """Measure what is missing, by all processes; the first one writes page and record, and returns the record.

    Raises UserError and UsageError for what the user can fix.
    """
    config, work = request.config, request.out / "work"
    with processes.main_first():  # the others find what the first one downloaded
        architecture = read_architecture(config.model)
    size = architecture.size(config.data.size)
    require_fit(config, architecture, size, processes.device)
    rows, held_out = processes.of_main(lambda: usable_rows(config, architecture, console))
    source = rows.source
    chosen = spread(rows.encodable, request.num_pairs)
    files = MediaFiles(source, work / f"data-{digest([source.stamp, rows.encodable])[:12]}")
    files.folder.mkdir(parents=True, exist_ok=True)
    with room_in(request.out):
        marks = mark_pairs(
            source, rows.encodable, files.folder / "marks.jsonl", config.data.max_pixels, processes, console
        )
        measured = measure_errors(request, source, chosen, work, console, processes)
        scores = {
            name: score_pairs(request, name, files, measured, console, processes) for name in request.scorers.names
        }
        if not processes.is_main:
            return None
        prompts, origins = source.prompts(rows.encodable), source.origins(rows.encodable)
        ids = [source.id(row) for row in rows.encodable]
        groups = clusters(marks)
        record = rounded({
            "model": config.model.path, "data": config.data.path, "schema": source.schema,
            "num_pairs": len(ids), "num_prompts": len(set(prompts)), "num_measured": len(chosen),
            "num_draws": request.num_draws, "seed": config.train.seed,
            "errors": errors_record(measured), "unlike": unlike_record(measured), "models": models_record(measured),
            "labels": labels_record(origins, prompts), "agreement": agreement_record(measured, scores),
            "duplicates": duplicates_record(ids, groups, [row in held_out for row in rows.encodable]),
            "leaks": leaks_record(prompts, request.benchmarks), "pairs": pairs_record(measured, scores),
        })  # fmt: skip
        write_atomic(request.out / "profile.json", json.dumps(record, indent=1, ensure_ascii=False))
        write_page(
            request.out / "profile.html", record, measured, scores, dict(zip(ids, rows.encodable, strict=True)), files
        )
    return record


def open_base(config: Config) -> Opened:
    """The reference of the config's training, its encoders on disk until they are needed."""
    start = start_folder(config.policy) if config.policy.reference == "start" else None
    return open_weights(config, config.model, start, "start", encoders=False)


def usable_rows(config: Config, architecture: Architecture, console: Console) -> tuple[Rows, set[int]]:
    """All usable rows, and those of them that the config holds out. Raises UsageError for data without rejected members."""
    train, validation, _ = open_rows(config, architecture, console)
    if not train.source.has_rejected:
        raise UsageError(
            f"data.path: {config.data.path} has no rejected members; a profile compares chosen with rejected"
        )
    same = validation is not None and validation.source is train.source
    return train, set(validation.usable) if validation and same else set()


def spread(items: Sequence, number: int) -> list:
    """`number` of the items, evenly spread; all if there are fewer."""
    places = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[place] for place in places]


def measure_errors(
    request: ProfileRequest, source: PairSource, rows: list[int], work: Path, console: Console, processes: Processes
) -> Measured:  # fmt: skip
    """Encode the rows and samples of the base, and measure the base's errors on both."""
    config, opened = request.config, open_base(request.config)
    backbone = opened.backbone
    probe = Probe(backbone, config.timesteps, config.kernel, config.num_inference_steps, config.train.seed,
                  request.num_draws, config.train.batch_size)  # fmt: skip
    made_by = {
        "denoiser": sampled(backbone.denoiser), **backbone.fingerprint(), "guidance": config.model.guidance,
        "windows": config.model.caption_windows, "dtype": str(backbone.dtype), "data": source.fingerprint, "rows": rows,
        "size": str(backbone.size), "crop": config.data.crop, "seed": probe.seed, "draws": probe.num_draws,
        "timesteps": repr(config.timesteps), "kernel": repr(config.kernel), "grid": config.num_inference_steps,
    }  # fmt: skip
    place = work / f"base-{digest(made_by)[:12]}"
    ids, prompts = [source.id(row) for row in rows], source.prompts(rows)
    encode(config, backbone, source, rows, place / "cache", console, processes)
    own_places = spread(range(len(rows)), request.num_own)
    with processes.main_first():
        sources = own_sources(source, [rows[each] for each in own_places], place / "sources")
    own = [] if not own_places else draw_own(
        config, opened, probe, [prompts[each] for each in own_places], [ids[each] for each in own_places], sources, place,
        console, processes,
    )  # fmt: skip
    lines = measure(probe, CachedPairs(Cache(place / "cache"), rows), ids, place / "pairs.jsonl", processes, console)
    none = [0.0] * probe.num_draws  # a deterministic kernel has no weights: all are 1
    coefficient = np.array([line.get("coefficient", none) for line in lines])
    chosen, rejected = (
        Errors(np.array([line[name] for line in lines]), coefficient) for name in ("chosen", "rejected")
    )
    threshold = getattr(config.loss, "prune_threshold", 0.0) or THRESHOLD
    return Measured(rows, ids, prompts, source.origins(rows), chosen, rejected, np.array(own).reshape(-1, probe.num_draws),
                    own_places, probe.edges, threshold)  # fmt: skip


def draw_own(
    config: Config, opened: Opened, probe: Probe, prompts: list[str], ids: list[str], sources: list[Path | None],
    place: Path, console: Console, processes: Processes,
) -> list[list[float]]:  # fmt: skip
    """A sample of the base for each prompt (and source), in a folder of `place`, and its errors with the noise of the pair of
    that id."""
    items = [
        PromptItem(prompt, config.sample.seed + number, source=source)
        for number, (prompt, source) in enumerate(zip(prompts, sources, strict=True))
    ]
    made_of = [dataclasses.asdict(item) | {"source": item.source and str(item.source)} for item in items]
    folder = place / f"own-{digest([opened.settings, made_of])[:12]}"
    at_once = config.sample.batch_size or opened.backbone.size.at_once
    generate(opened.sampler, items, folder, opened.settings, at_once, console, processes=processes)
    source, rows = as_pairs(folder, processes), list(range(len(items)))
    encode(config, opened.backbone, source, rows, folder / "cache", console, processes)
    lines = measure(probe, CachedPairs(Cache(folder / "cache"), rows), ids, folder / "own.jsonl", processes, console)
    return [line["chosen"] for line in lines]


def own_sources(source: PairSource, rows: list[int], folder: Path) -> list[Path | None]:
    """The picture that each row's members were made of, as a file; of a table that holds its content, in `folder`."""
    found: list[Path | None] = []
    for row in rows:
        media = source[row].source if source.has_source else None
        if isinstance(media, bytes):
            content, media = media, folder / f"{row}.png"  # a picture's format is read from its first bytes
            write_atomic(media, content)
        found.append(media)
    return found


def encode(
    config: Config, backbone: Any, source: PairSource, rows: list[int], out: Path, console: Console, processes: Processes
) -> None:  # fmt: skip
    """The rows as a training of the config would cache them, in one orientation."""
    data = config.data
    request = EncodeRequest(source, rows, backbone.size, data.crop, False, config.train.seed, data.max_pixels,
                            num_workers=data.workers)  # fmt: skip
    encode_cache(backbone, request, out, processes, console)


def as_pairs(folder: Path, processes: Processes) -> PairSource:
    """The samples of a folder as pairs without rejected members."""
    file = folder / "samples-as-pairs.jsonl"
    if processes.is_main:
        lines = (
            {"prompt": sample.prompt, "chosen": sample.file} | ({"source": sample.source} if sample.source else {})
            for sample in read_samples(folder)
        )
        write_atomic(file, dump_jsonl(lines))
    processes.barrier()
    return open_pairs(file)


def score_pairs(
    request: ProfileRequest, name: str, files: MediaFiles, measured: Measured, console: Console, processes: Processes
) -> np.ndarray:
    """(N, 2): the scores of chosen and rejected, NaN where a file has none."""
    with processes.main_first():
        samples = [
            Sample(str(files.media(row, member)), prompt, row)
            for row, prompt in zip(measured.rows, measured.prompts, strict=True)
            for member in (0, 1)
        ]
    found = score(
        files.folder, request.scorers.load(name), request.scorers.batch_size, console, samples, processes=processes
    )
    return np.array([each.value for each in found]).reshape(-1, 2)
