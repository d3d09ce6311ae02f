"""VBench from a model to a table: make the videos, have the official package judge them, aggregate its results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sipo.errors import UsageError, UserError
from sipo.processes import ALONE, Processes
from sipo.samples.generate import generate
from sipo.tables import Markdown, markdown_table
from sipo.vbench.files import VIDEO_FOLDER, made_for, name_videos, plan_videos, read_results, read_suite
from sipo.vbench.official import run_dimensions
from sipo.vbench.totals import DIMENSIONS, QUALITY, aggregate

RESULTS = "vbench"  # inside the folder of a model
TOTALS = ("total", "quality", "semantic")


@dataclass(frozen=True)
class VideoRequest:
    """`sipo vbench generate`. No `dimensions`: all. rewritten: a file of texts to generate from; None: the prompts."""

    model: str
    prompts: Path
    out: Path
    dimensions: Sequence[str] = ()
    rewritten: Path | None = None
    seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 1


def generate_videos(request: VideoRequest, console: Console, processes: Processes = ALONE) -> int:
    """Make the videos that are missing, by all processes, and name them in `out`/videos; how many there are then.

    Raises UserError for a picture model.
    """
    from sipo.backbones.opening import open_for_sampling

    suite = read_suite(request.prompts, request.dimensions or tuple(DIMENSIONS), request.rewritten)
    items, names = plan_videos(suite, request.seed)
    opened = open_for_sampling(request.model, False, request.num_inference_steps, request.guidance_scale)
    if "fps" not in opened.settings:
        raise UserError(f"{request.model} makes pictures; VBench judges videos.")
    prompts = "rewritten" if request.rewritten else "raw"
    settings = {**opened.settings, "benchmark": "vbench", "prompts": prompts}
    generate(opened.sampler, items, request.out, settings, request.batch_size, console, None, processes)
    if processes.is_main:
        name_videos(request.out, names, request.out / VIDEO_FOLDER)
    processes.barrier()
    return len(items)


def run_package(
    folder: Path,
    environment: Path,
    dimensions: Sequence[str] | None,
    num_gpus: int,
    console: Console,
    processes: Processes = ALONE,
) -> str:
    """Have the package of `environment` judge `folder`/videos, and return the table. UserError names what failed.

    All `processes` call it, and each has whole dimensions judged, on `num_gpus` (of several processes: one each).
    `None`: every dimension that the videos were made for. Raises UsageError for others.
    """
    unknown = [name for name in dimensions or [] if name not in DIMENSIONS]
    if unknown:
        raise UsageError(f"VBench has no dimension {', '.join(unknown)}; it has {', '.join(DIMENSIONS)}")
    there = made_for(folder)
    without = [name for name in dimensions or [] if name not in there]
    if without:
        raise UsageError(f"{folder} has no videos for {', '.join(without)}: they were made for {', '.join(there)}")
    wanted = list(dimensions or there)
    failed = run_dimensions(
        environment, folder / VIDEO_FOLDER, wanted, folder / RESULTS, num_gpus, console, None, processes
    )
    if failed:
        raise UserError(f"VBench left no results for {', '.join(failed)}: see above. What is done is kept.")
    return results_table({folder.name: read_results(folder / RESULTS)})


def show_results(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """The table of the results under each folder, and for each without totals a sentence that names what is missing."""
    models = {str(folder): read_results(folder) for folder in folders}
    problems = []
    for name, scores in models.items():
        try:
            aggregate(scores)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return results_table(models), problems


def results_table(models: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row a dimension and a column a model, in percent; the totals, where all sixteen are present, first."""
    totals = {name: _totals(scores) for name, scores in models.items()}
    rows: list[tuple[str | None, ...]] = [
        (Markdown(f"**{key.title()}**"), *(_percent(totals[name].get(key)) for name in models)) for key in TOTALS
    ]
    for dimension in DIMENSIONS:
        group = "quality" if dimension in QUALITY else "semantic"
        figures = (_percent(scores.get(dimension)) for scores in models.values())
        rows.append((f"{dimension.replace('_', ' ')} ({group})", *figures))
    return markdown_table(("", *models), rows)


def _totals(scores: Mapping[str, float]) -> dict[str, float]:
    try:
        return aggregate(scores)
    except ValueError:  # show_results reports what is missing
        return {}


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f}"
