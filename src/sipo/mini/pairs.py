"""`sipo mini pairs`: the miniature's own pictures, scored and paired as `sipo generate`, `score` and `label` do it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from rich.console import Console

from sipo.backbones import resolve_path
from sipo.backbones.opening import open_for_sampling
from sipo.errors import UsageError
from sipo.evaluate.label.files import PARQUET, require_ending, write_pairs
from sipo.evaluate.label.label import Candidate, LabelledPair, label
from sipo.evaluate.scores.score import score
from sipo.files import hash_files
from sipo.mini import STILL
from sipo.mini.prompts import Groups, draw_prompts, split_prompts
from sipo.processes import ALONE, Processes
from sipo.registry import Miniature, import_object
from sipo.samples.folder import PromptItem
from sipo.samples.generate import Sampler, generate
from sipo.samples.sources import SourceSampler

Contrast = Literal["any", "right", "both"]


@dataclass(frozen=True)
class PairSettings:
    """`num_prompts` draws of a prompt that is not held out, as many of each category; of the `candidates` pictures of each, the best and the
    worst are a pair if the best is right.

    contrast: of "any" pictures, and nearly every pair is right against wrong, which says little of how a right picture
    should look; of the "right" ones, which differ in how clean they are; or "both" pairs.
    margin: scores (in [0, 2]) that differ by less are a tie, which is dropped.
    jpeg_quality: writes pictures as JPEGs of this quality (chroma at full resolution), which take half the room of PNGs of
    noisy pictures; a pair that is none by the scores of its JPEGs is dropped.
    """

    num_prompts: int = 1000
    candidates: int = 4
    margin: float = 0.05
    contrast: Contrast = "both"
    seed: int = 0
    jpeg_quality: int | None = None


def pairs_of_model(
    out: Path,
    model: str,
    settings: PairSettings,
    bf16: bool,
    console: Console,
    miniature: Miniature = STILL,
    prompts: Groups | None = None,
    processes: Processes = ALONE,
) -> int:
    """Write pairs of the media of `model`: the miniature's name, or a folder that `sipo mini build` made. See `make_pairs`.

    Raises UsageError for another ending than .parquet.
    """
    require_ending("--out", out, PARQUET)
    opened = open_for_sampling(model, False, miniature.num_inference_steps, miniature.guidance_scale)
    if isinstance(opened.sampler, SourceSampler):
        raise UsageError(f"{model} reads a source for each prompt; pairs of the miniature are drawn from prompts alone")
    weights = sorted(Path(resolve_path(model)).rglob("*.safetensors"))
    made_by = {**opened.settings, "weights": hash_files(weights)[:12], "autocast": bf16}
    sampler = _in_bfloat16(opened.sampler) if bf16 else opened.sampler
    return make_pairs(out, sampler, made_by, settings, console, miniature, prompts, processes)


def make_pairs(
    out: Path,
    sampler: Sampler,
    made_by: dict,
    settings: PairSettings,
    console: Console | None = None,
    miniature: Miniature = STILL,
    prompts: Groups | None = None,
    processes: Processes = ALONE,
) -> int:
    """Write `out` (parquet) and return its number of pairs. All `processes` draw and score; the first one pairs and writes.

    prompts: those to draw from, by category; None: all of the still world that are not held out.

    The pictures and their scores stay in the folder `out` + ".samples". The same call again resumes there, and one with
    more prompts, or with another margin, uses what the folder holds. Raises `UserError` if its pictures were made by
    something else than `made_by`, or if no pair is left.
    """
    folder = out.with_name(out.name + ".samples")
    items = _items(settings, prompts or split_prompts()[0])
    generate(sampler, items, folder, made_by, batch_size=32, console=console, processes=processes)
    scores = score(folder, import_object(miniature.scorer)(), console=console, processes=processes)
    candidates = [Candidate(folder / each.sample.file, each, f"sipo-{miniature.name}") for each in scores]
    right = [each for each in candidates if each.is_right]
    groups = {"any": [candidates], "right": [right], "both": [candidates, right]}[settings.contrast]
    found = [pair for group in groups for pair in label(group, "best-worst", settings.margin, True).preferences.pairs]
    pairs = list({(pair.chosen.path, pair.rejected.path): pair for pair in found}.values())
    read = None
    if settings.jpeg_quality:
        read = partial(as_jpeg, quality=settings.jpeg_quality)
        pairs = _still_pairs(pairs, read, import_object(miniature.scorer)(), settings.margin)
    if processes.is_main:
        write_pairs(pairs, out, settings.seed, read)
    return len(pairs)


def as_jpeg(path: Path, quality: int) -> bytes:
    """The picture of a file, compressed."""
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _still_pairs(
    pairs: Sequence[LabelledPair], read: Callable[[Path], bytes], scorer: Any, margin: float
) -> list[LabelledPair]:
    """Those whose chosen picture is right and better by the margin as it will be read."""
    prompts = [pair.prompt for pair in pairs]
    chosen, rejected = (
        scorer.details([Image.open(io.BytesIO(read(path))) for path in paths], prompts)
        for paths in zip(*((pair.chosen.path, pair.rejected.path) for pair in pairs), strict=True)
    )
    return [
        pair
        for pair, better, worse in zip(pairs, chosen, rejected, strict=True)
        if better["correct"] and better["score"] >= worse["score"] + margin
    ]


def _items(settings: PairSettings, groups: Groups) -> list[PromptItem]:
    """The pictures of every draw of a prompt; `draw` tells a prompt's later draws from its first one."""
    first = settings.seed * 10_000_019 + 1_000_000  # far from the seeds of evaluations
    prompts = draw_prompts(groups, settings.num_prompts, settings.seed)
    return [
        PromptItem(entry["prompt"], first + draw * settings.candidates + k, {**entry, "draw": draw})
        for draw, entry in enumerate(prompts)
        for k in range(settings.candidates)
    ]


def _in_bfloat16(sampler: Sampler) -> Sampler:
    def sample(prompts: list[str], seeds: list[int]) -> Sequence[Image.Image | list[Image.Image]]:
        with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16):
            return sampler(prompts, seeds)

    return sample
