"""`sipo mini pairs`: the miniature's own pictures, ranked by its score, as preference pairs in Pick-a-Pic's schema."""

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from diffusers import StableDiffusionPipeline
from PIL import Image
from rich.console import Console
from rich.progress import track

from sipo.data.pairs.pick_a_pic import encode_rows, encode_table, pair_row
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.mini.pipeline import GUIDANCE_SCALE, NUM_INFERENCE_STEPS, sample
from sipo.mini.prompts import sample_prompts
from sipo.mini.recipe import MIXTURE
from sipo.mini.score import MiniatureScorer

SHIPPED = Path(__file__).parent / "pairs" / "pairs.parquet"


@dataclass(frozen=True)
class PairSettings:
    """`num_prompts` draws of a train prompt, `candidates` pictures for each, and one pair of them: the best and the worst.

    only_right: of those that are right, so that the two differ in how clean they are; else of all, and nearly every pair
    is then right against wrong, which says little of how a picture should look. The better one is right in both cases.
    margin: scores (in [0, 2]) that differ by less are a tie, which is dropped.
    """

    num_prompts: int = 1400
    candidates: int = 8
    margin: float = 0.05
    only_right: bool = True
    num_inference_steps: int = NUM_INFERENCE_STEPS
    guidance_scale: float = GUIDANCE_SCALE
    seed: int = 0


def make_pairs(
    out: Path,
    pipeline: StableDiffusionPipeline,
    settings: PairSettings | None = None,
    bf16: bool = False,
    chunk: int = 40,
    console: Console | None = None,
) -> int:
    """Write `out` (parquet) and return its number of pairs.

    Works through the prompts in chunks, each a parquet part in the folder `out` + ".parts"; the same call again goes on
    after the last whole part, and more prompts may be asked for. Raises `UserError` if the parts there were made with
    other settings or weights.
    """
    settings, out, console = settings or PairSettings(), Path(out), console or Console()
    parts = out.with_name(out.name + ".parts")
    _claim(parts, f"{replace(settings, num_prompts=0)}\nbf16={bf16} chunk={chunk}\nunet={_fingerprint(pipeline)}\n")
    prompts = sample_prompts(settings.num_prompts, settings.seed, "train", MIXTURE)
    paths = []
    starts = list(range(0, len(prompts), chunk))
    for start in track(starts, "Sampling and ranking", console=console, transient=True):
        part = prompts[start : start + chunk]
        path = parts / f"{start:06}-{len(part):03}.parquet"
        paths.append(path)
        if not path.is_file():
            rows = _ranked(pipeline, part, start, settings, bf16)
            write_atomic(path, encode_rows(rows))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    write_atomic(out, encode_table(table, "zstd", row_group_size=200))
    console.print(
        f"{out}: {table.num_rows} pairs of {len(prompts)} prompts; the rest were ties or lacked right pictures"
    )
    return table.num_rows


def _claim(parts: Path, made_by: str) -> None:
    note = parts / "made_by.txt"
    if note.is_file() and note.read_text(encoding="utf-8") != made_by:
        raise UserError(f"{parts} holds parts made with other settings or weights: remove it, or write elsewhere.")
    write_atomic(note, made_by)


def _fingerprint(pipeline: StableDiffusionPipeline) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in pipeline.unet.state_dict().values():
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _ranked(
    pipeline: StableDiffusionPipeline, prompts: list[dict], start: int, settings: PairSettings, bf16: bool
) -> list[dict]:
    """The pairs of a chunk of prompts, at most one each; picture k of prompt i has a seed of its own."""
    texts = [prompt["prompt"] for prompt in prompts for _ in range(settings.candidates)]
    first = settings.seed * 10_000_019 + start * settings.candidates + 1_000_000  # far from the seeds of evaluations
    images = sample(
        pipeline,
        texts,
        list(range(first, first + len(texts))),
        settings.num_inference_steps,
        settings.guidance_scale,
        autocast=bf16,
    )
    wanted = [prompt for prompt in prompts for _ in range(settings.candidates)]
    details = MiniatureScorer().details(images, texts, wanted)
    rows = []
    for i, prompt in enumerate(prompts):
        group = list(range(i * settings.candidates, (i + 1) * settings.candidates))
        best, worst = _contrast(group, details, settings.only_right)
        gap = details[best]["score"] - details[worst]["score"]
        if details[best]["correct"] and gap >= settings.margin:
            sides = _png(images[best]), _png(images[worst])
            rows.append(pair_row(prompt["prompt"], start + i, *sides, gap, settings.seed, ("sipo-miniature",) * 2))
    return rows


def _contrast(group: list[int], details: list[dict], only_right: bool) -> tuple[int, int]:
    """The best and the worst of a prompt's pictures, or of the right ones among them (twice the best if there is one)."""
    ranked = sorted(group, key=lambda k: details[k]["score"], reverse=True)
    if only_right:
        ranked = [k for k in ranked if details[k]["correct"]] or ranked[:1]
    return ranked[0], ranked[-1]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
