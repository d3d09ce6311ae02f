"""The commands that generate samples, score and compare them, and write reports."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli.common import RunFolder, quiet_libraries, say, together
from sipo.errors import UsageError
from sipo.registry import DEFAULT

Scorers = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        help=f"As for `sipo score`; may be repeated. Default: that of the miniature whose prompts are asked, else {DEFAULT}.",
    ),
]
Weights = Annotated[list[str] | None, typer.Option(help="NAME=PATH or NAME=HUB-ID of a scorer.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: a GPU if there is one.")]
DType = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
BatchSize = Annotated[int, typer.Option(min=1)]
PROMPTS = "a .txt or .jsonl file of prompts, a published set (README), or miniature for its held-out prompts."
Seed = Annotated[int, typer.Option(help="Seed of the first sample; sample i has seed + i.")]


def generate(
    model: Annotated[
        str,
        typer.Argument(
            help="A run directory, what model.path takes (miniature, a folder, a hub id), or a config: the model it names."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    prompts: Annotated[str, typer.Option(help=f"What to generate: {PROMPTS}")],
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Use only the first N.")] = None,
    images_per_prompt: Annotated[int, typer.Option(min=1)] = 1,
    seed: Seed = 0,
    num_inference_steps: Annotated[int | None, typer.Option(min=1, help="Default: the run's, else 25.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Default: the run's, else 7.5.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Default: 8 pictures, 1 video.")] = None,
) -> None:
    """Generate samples from prompts, with a run's weights or any model. Run the same command again to resume."""
    quiet_libraries()
    from sipo.backbones.opening import open_for_sampling
    from sipo.samples.generate import generate as make
    from sipo.samples.prompts import read_prompts

    with together() as (processes, screen):
        items = read_prompts(prompts, num_prompts, seed, images_per_prompt)
        opened = open_for_sampling(model, False, num_inference_steps, guidance_scale)
        at_once = batch_size or opened.backbone.size.at_once
        make(opened.sampler, items, out, opened.settings, at_once, screen, processes=processes)
    say(f"{len(items)} pictures in {out}")


def score(
    path: Annotated[
        Path, typer.Argument(help="A run, a folder that `sipo generate` made, or any folder of pictures or videos.")
    ],
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            help="A name of `sipo list scorers`, such as pickscore, module:Class, or a judge's .yaml; NAME=WEIGHTS adds a path or hub id."
        ),
    ] = None,
    weights: Weights = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="NAME=COMMAND of a scorer in its own environment; see docs/scorers.md.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds of silence after which a --worker is ended.")
    ] = 3600,
    prompts: Annotated[
        str | None, typer.Option(help="The folder's prompts: .txt, or .jsonl with file and prompt.")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, help="Frames of a video over which a scorer of pictures is averaged.")
    ] = 8,
    device: Device = None,
    dtype: DType = None,
    batch_size: BatchSize = 16,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.NAME.jsonl; default: beside the media.")] = None,
) -> None:
    """Score pictures or videos. Run the same command again to resume. Exits with 1 if files could not be read."""
    quiet_libraries()
    from sipo.evaluate.scores.sources import find_media
    from sipo.evaluate.scores.table import print_scores, score_folders
    from sipo.scorers.choice import choose_scorers

    chosen = choose_scorers(scorer or (), weights or (), worker or (), device, dtype, batch_size, frames, patience)
    with together() as (processes, screen):
        scorers = chosen.load_all()
        results = score_folders(find_media(path, prompts), scorers, batch_size, screen, out, processes)
        print_scores(results, screen)
    if any(result.failed for result in results):
        raise typer.Exit(1)


def compare(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Runs, folders that `sipo generate` made, or files of scores: the first is compared with each of the "
            "others. A run alone is compared with its base model.",
            show_default=False,
        ),
    ],
    base: Annotated[
        bool, typer.Option("--base", help="Add the base model of the first, a run, to the others.")
    ] = False,
    scorer: Scorers = None,
    weights: Weights = None,
    prompts: Annotated[str, typer.Option(help=f"What to generate with runs: {PROMPTS}")] = DEFAULT,
    num_prompts: Annotated[int, typer.Option(min=1, help="Use the first N of them.")] = 200,
    images_per_prompt: Annotated[int, typer.Option(min=1)] = 1,
    seed: Seed = 0,
    category: Annotated[
        str | None, typer.Option(help="Metadata key of the breakdown; default: tag, style or category.")
    ] = None,
    tie_margin: Annotated[float, typer.Option(min=0, help="Scores that differ by at most this tie.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the comparison; default: in the run, or A-vs-B.")] = None,
    device: Device = None,
    dtype: DType = None,
    batch_size: Annotated[int, typer.Option(min=1, help="To draw and to score; videos are drawn one by one.")] = 16,
) -> None:
    """Win rate, mean difference and significance, paired by prompt and seed, with the samples that differ most.

    A judge's .yaml as a scorer may compare the two samples of a prompt, in both orders. Writes comparison.html, .md, .csv
    and .json, and the mean scores as table.csv. Existing scores are used.
    """
    quiet_libraries()
    from sipo.evaluate.compare.run import CompareRequest, PromptChoice, compare_models
    from sipo.scorers.choice import choose_scorers

    if len(models) == 1 and base:
        raise UsageError("--base: a run alone is compared with its base already")
    choice = PromptChoice(prompts, num_prompts, images_per_prompt, seed)
    scorers = choose_scorers(scorer or (), weights or (), (), device, dtype, batch_size)
    request = CompareRequest(models, choice, scorers, out, base, category, tie_margin)
    with together() as (processes, screen):
        shown = compare_models(request, screen, processes)
    say(shown)


def report(run: RunFolder) -> None:
    """Write the run's report.html again, from the files in its directory."""
    from sipo.evaluate.report.report import report as write_report
    from sipo.evaluate.report.report import summary
    from sipo.run import RunDir

    opened = RunDir(run).require()
    write_report(opened)
    say(summary(opened))
