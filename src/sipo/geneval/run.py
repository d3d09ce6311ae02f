"""GenEval from a model to a table, as the commands do it: compose prompts, make pictures, judge them, compare models."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from sipo import registry
from sipo.errors import UsageError, UserError
from sipo.files import write_atomic
from sipo.geneval.compose import compose
from sipo.geneval.detectors import ColorNamer, Detector
from sipo.geneval.judging import judge_folder
from sipo.geneval.layout import (
    plan_pictures,
    read_gallery,
    read_rewritten,
    refuse_foreign,
    write_metadata,
)
from sipo.geneval.results import as_csv, as_jsonl, as_markdown, read_official, read_summary, write_results
from sipo.geneval.rules import Thresholds
from sipo.jsonl import dump_jsonl
from sipo.processes import ALONE, Processes
from sipo.samples.folder import read_settings
from sipo.samples.generate import generate
from sipo.samples.metadata import CATEGORIES, read_metadata
from sipo.samples.prompts import read_prompts

OFFICIAL_ELSEWHERE = (
    "note: the official thresholds (0.3; 0.9 for counting) were chosen for Mask2Former; other detectors' scores mean "
    "something else. Choose --threshold and --counting-threshold for this one, and keep them for all models you compare."
)
FORMATS = {"markdown": as_markdown, "csv": as_csv, "jsonl": as_jsonl}


@dataclass(frozen=True)
class ComposeRequest:
    """`sipo prompts compose`. avoid: prompt files whose prompts must not be drawn; a miniature's held-out ones never are."""

    out: Path
    num: int = 5000
    seed: int = 0
    world: str = "geneval"
    tags: Sequence[str] = CATEGORIES
    avoid: Sequence[str] = ()


@dataclass(frozen=True)
class PictureRequest:
    """`sipo geneval generate`. rewritten: a file of texts to generate from; None: the prompts themselves."""

    model: str
    metadata: str
    out: Path
    images_per_prompt: int = 4
    rewritten: str | None = None
    seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 8


@dataclass(frozen=True)
class JudgeRequest:
    """`sipo geneval judge`. None: the detector's own weights and thresholds, GenEval's CLIP for the colours."""

    folder: Path
    detector: str
    weights: str | None = None
    color_weights: str | None = None
    threshold: float | None = None
    counting_threshold: float | None = None
    max_overlap: float | None = None
    device: str = "auto"
    batch_size: int = 8


def compose_prompts(request: ComposeRequest) -> dict[str, int]:
    """Write the prompts (JSONL) and return how many there are of each category."""
    if request.out.suffix != ".jsonl":
        raise UsageError(f"{request.out} should end in .jsonl")
    world = registry.worlds.load(request.world, "--world")
    held_out = [request.world] if registry.miniature(request.world) else []
    avoided = [item.prompt for file in [*request.avoid, *held_out] for item in read_prompts(file)]
    found = compose(request.num, request.seed, world, request.tags, avoided)
    write_atomic(request.out, dump_jsonl(found))
    return {tag: sum(entry["tag"] == tag for entry in found) for tag in CATEGORIES}


def generate_pictures(request: PictureRequest, console: Console, processes: Processes = ALONE) -> int:
    """Make the pictures that are missing, by all processes; how many there are then. UserError for a video model."""
    from sipo.backbones.opening import open_for_sampling

    if request.images_per_prompt < 1:
        raise UsageError("--images-per-prompt must be at least 1")
    entries, rewritten = read_metadata(request.metadata), request.rewritten
    texts = read_rewritten(rewritten, entries) if rewritten else [entry["prompt"] for entry in entries]
    items, files = plan_pictures(entries, texts, request.images_per_prompt, request.seed)
    refuse_foreign(request.out)
    opened = open_for_sampling(request.model, False, request.num_inference_steps, request.guidance_scale)
    if "fps" in opened.settings:
        raise UserError(f"{request.model} makes videos; GenEval judges pictures.")
    settings = {**opened.settings, "benchmark": "geneval", "prompts": "rewritten" if rewritten else "raw"}
    generate(opened.sampler, items, request.out, settings, request.batch_size, console, files, processes)
    if processes.is_main:
        write_metadata(request.out, entries)
    processes.barrier()
    return len(items)


def judge_pictures(request: JudgeRequest, console: Console, processes: Processes = ALONE) -> tuple[str, list[str]]:
    """Judge, by all processes; the first one writes the results beside the pictures. Returns the table ("" in the other
    processes), and what could not be judged.

    Raises UsageError for thresholds outside [0, 1].
    """
    folder = request.folder
    detector: Detector = registry.detectors.make(
        request.detector, "--detector", weights=request.weights, device=request.device
    )
    thresholds = _thresholds(request, detector.thresholds or Thresholds())
    if detector.thresholds is None and None in (request.threshold, request.counting_threshold):
        console.print(OFFICIAL_ELSEWHERE, highlight=False)
    colors = None if detector.names_colors else _color_namer(folder, request.color_weights, request.device)
    judged = judge_folder(folder, detector, colors, thresholds, request.batch_size, console, processes)
    if not processes.is_main:
        return "", judged.problems
    settings = read_settings(folder)
    about = {
        "name": _name(folder, settings),
        "prompts": settings.get("prompts", "not recorded"),
        "detector": detector.name,
        "colors": "the detector's" if colors is None else colors.weights,
        "thresholds": asdict(thresholds),
        "generation": settings,
        "unreadable": judged.unreadable,
        "missing": judged.missing,
    }
    return as_markdown([write_results(folder, judged.records, about)]), judged.problems


def compare_results(folders: Sequence[Path], form: str) -> str:
    """The table of the paper's Table 3: a row a judged folder, or a results.jsonl of the official evaluator.

    Raises UsageError for an unknown format.
    """
    if form not in FORMATS:
        raise UsageError(f"--format: {form!r} is none of {', '.join(FORMATS)}")
    return FORMATS[form]([read_official(path) if path.is_file() else read_summary(path) for path in folders])


def _thresholds(request: JudgeRequest, defaults: Thresholds) -> Thresholds:
    asked = {"score": request.threshold, "counting": request.counting_threshold, "max_overlap": request.max_overlap}
    given = {name: value for name, value in asked.items() if value is not None}
    for name, value in given.items():
        if not 0 <= value <= 1:
            raise UsageError(f"the threshold {name} is a share between 0 and 1, not {value}")
    return replace(defaults, **given)


def _color_namer(folder: Path, weights: str | None, device: str) -> ColorNamer | None:
    """CLIP, if a prompt of the folder names a colour; its weights are read when the first colour is needed."""
    clauses = (clause for picture in read_gallery(folder).pictures for clause in picture.metadata["include"])
    if not any("color" in clause for clause in clauses):
        return None
    from sipo.geneval.detectors.colour import ClipColors

    return ClipColors(**({"weights": weights} if weights else {}), device=device)


def _name(folder: Path, settings: dict) -> str:
    """What the row is called: the run with its weights, or the model, or the folder."""
    weights = settings.get("weights", "base")
    return str(weights if weights != "base" else settings.get("model", folder.resolve().name))
