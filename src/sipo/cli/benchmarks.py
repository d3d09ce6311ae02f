"""The commands of the benchmarks GenEval and VBench."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli.common import quiet_libraries, say, together

geneval = typer.Typer(no_args_is_help=True, help="GenEval: pictures in its layout, its rules, its table.")
vbench = typer.Typer(no_args_is_help=True, help="VBench: videos under its names, the official package, its totals.")

Model = Annotated[
    str,
    typer.Argument(
        help="A run directory, what model.path takes (a miniature's name, a folder, a hub id), or a config: the model it names."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Default: the run's, else 25.")]
Guidance = Annotated[float | None, typer.Option(help="Default: the run's, else 7.5.")]
Seed = Annotated[int, typer.Option(help="The first one's seed; number i gets seed + i.")]
Batch = Annotated[int, typer.Option(min=1)]


@geneval.command("generate")
def geneval_generate(
    model: Model,
    metadata: Annotated[str, typer.Option(help="GenEval's evaluation_metadata.jsonl, or a miniature's name.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    images_per_prompt: Annotated[int, typer.Option(min=1)] = 4,
    rewritten: Annotated[
        str | None, typer.Option(help="A .txt or .jsonl file of rewritten prompts, one for each, in order.")
    ] = None,
    seed: Seed = 0,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    batch_size: Batch = 8,
) -> None:
    """Make GenEval's pictures in its layout. The same command resumes."""
    quiet_libraries()
    from sipo.geneval.run import PictureRequest, generate_pictures

    request = PictureRequest(
        model, metadata, out, images_per_prompt, rewritten, seed, num_inference_steps, guidance_scale, batch_size
    )
    with together() as (processes, screen):
        number = generate_pictures(request, screen, processes)
    say(f"{number} pictures in {out}")


@geneval.command("judge")
def geneval_judge(
    folder: Annotated[Path, typer.Argument(help="Pictures in GenEval's layout.")],
    detector: Annotated[
        str, typer.Option(help="A name of `sipo list detectors`, such as mask2former, or module:Class.")
    ],
    weights: Annotated[str | None, typer.Option(help="The detector's: a folder or hub id.")] = None,
    color_weights: Annotated[str | None, typer.Option(help="A CLIP that names colours; default: ViT-L/14.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Least score of a detection; official: 0.3.")] = None,
    counting_threshold: Annotated[float | None, typer.Option(help="The same for counting; official: 0.9.")] = None,
    max_overlap: Annotated[
        float | None, typer.Option(help="Boxes of a class that overlap more are suppressed; official: 1, none.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    batch_size: Batch = 8,
) -> None:
    """Judge pictures by GenEval's rules; results.jsonl, geneval.json and the table are written beside them.

    Exits with 1 where pictures are missing or cannot be read; the others are judged.
    """
    quiet_libraries()
    from sipo.geneval.run import JudgeRequest, judge_pictures

    request = JudgeRequest(
        folder, detector, weights, color_weights, threshold, counting_threshold, max_overlap, device, batch_size
    )
    with together() as (processes, screen):
        judged = judge_pictures(request, screen, processes)
    tell(*judged)


@geneval.command("table")
def geneval_table(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders that were judged, or the official evaluator's results.jsonl, a row each.", show_default=False
        ),
    ],
    form: Annotated[str, typer.Option("--format", help="markdown, csv or jsonl.")] = "markdown",
) -> None:
    """Several judged folders side by side."""
    from sipo.geneval.run import compare_results

    say(compare_results(folders, form), nl=False)


@vbench.command("generate")
def vbench_generate(
    model: Model,
    prompts: Annotated[Path, typer.Option(help="VBench_full_info.json, or the folder prompts_per_dimension.")],
    out: Annotated[Path, typer.Option(help="Folder for the videos.")],
    dimension: Annotated[list[str] | None, typer.Option(help="Only its prompts; repeatable.")] = None,
    rewritten: Annotated[
        Path | None, typer.Option(help="A text file of rewritten prompts, a line for each entry of the JSON.")
    ] = None,
    seed: Seed = 0,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    batch_size: Batch = 1,
) -> None:
    """Make VBench's videos: 5 a prompt, 25 for temporal_flickering. The same command resumes."""
    quiet_libraries()
    from sipo.vbench.run import VideoRequest, generate_videos

    request = VideoRequest(
        model, prompts, out, dimension or (), rewritten, seed, num_inference_steps, guidance_scale, batch_size
    )
    with together() as (processes, screen):
        number = generate_videos(request, screen, processes)
    say(f"{number} videos in {out / 'videos'}")


@vbench.command("run")
def vbench_run(
    folder: Annotated[Path, typer.Argument(help="What `sipo vbench generate` made: the videos are in its videos/.")],
    environment: Annotated[Path, typer.Option(help="The virtual environment with the official package.")],
    dimension: Annotated[
        list[str] | None, typer.Option(help="Only these; default: all that there are videos for.")
    ] = None,
    num_gpus: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Have the official package judge the videos, a dimension at a time. Dimensions with results are skipped."""
    from sipo.vbench.run import run_package

    with together() as (processes, screen):
        shown = run_package(folder, environment, dimension, num_gpus, screen, processes)
    say(shown, nl=False)


@vbench.command("table")
def vbench_table(
    folders: Annotated[list[Path], typer.Argument(help="Folders with results, a column each.", show_default=False)],
) -> None:
    """Every dimension, and Quality, Semantic and Total. Exits with 1 where a dimension is missing for these."""
    from sipo.vbench.run import show_results

    tell(*show_results(folders))


def tell(shown: str, problems: list[str]) -> None:
    """Print a table, and its problems on stderr; with any, the exit status is 1."""
    say(shown, nl=False)
    for problem in problems:
        say(problem, err=True)
    if problems:
        raise typer.Exit(1)
