"""The commands that judge and make data of judgements: thin, as those in `sipo.cli`, which takes them in."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli_benchmarks import console, quiet_libraries
from sipo.errors import UsageError

prompts = typer.Typer(no_args_is_help=True, help="Prompts composed at random, with what a judge must check.")

Scorers = Annotated[
    list[str] | None, typer.Option("--scorer", help="As of `sipo score`; as often as wanted. Default: miniature.")
]
Weights = Annotated[list[str] | None, typer.Option(help="NAME=PATH or NAME=HUB-ID, of a scorer.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: a GPU where there is one.")]
DType = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
BatchSize = Annotated[int, typer.Option(min=1)]


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
    prompts: Annotated[
        str, typer.Option(help="Prompts to generate for, of runs; a .txt or .jsonl file, or miniature.")
    ] = "miniature",
    num_prompts: Annotated[int, typer.Option(help="The first so many of them.")] = 200,
    images_per_prompt: Annotated[int, typer.Option()] = 1,
    seed: Annotated[int, typer.Option(help="The first picture's seed; picture i gets seed + i.")] = 0,
    category: Annotated[
        str | None, typer.Option(help="Metadata key of the breakdown; default: tag, style or category.")
    ] = None,
    tie_margin: Annotated[float, typer.Option(min=0, help="Scores that differ by at most this tie.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the comparison; default: in the run, or A-vs-B.")] = None,
    device: Device = None,
    dtype: DType = None,
    batch_size: BatchSize = 16,
) -> None:
    """Who wins, by how much, and is it chance: paired by prompt and seed, with the pictures that differ most.

    Writes comparison.html, .md, .csv and .json, and table.csv, the means of all. Scores that are there already count.
    """  # fmt: skip
    quiet_libraries()
    from sipo.workflows_compare import PromptChoice, compare_models
    from sipo.workflows_judges import name_judges

    if len(models) == 1 and base:
        raise UsageError("--base: a run alone is compared with its base anyway")
    choice = PromptChoice(prompts, num_prompts, images_per_prompt, seed)
    judges = name_judges(scorer or [], named("--weights", weights), device, dtype, batch_size)
    typer.echo(compare_models(models, choice, judges, out, console(), base, category, tie_margin))


def label(
    folders: Annotated[
        list[Path], typer.Argument(help="Samples, several a prompt; prompts are matched across the folders.")
    ],
    out: Annotated[Path, typer.Option(help="pairs.parquet (Pick-a-Pic's schema) or pairs.jsonl (paths).")],
    scorer: Annotated[str, typer.Option(help="Whose scores decide, as of `sipo score`.")] = "miniature",
    weights: Annotated[str | None, typer.Option(help="The scorer's: a path or hub id.")] = None,
    mode: Annotated[
        str, typer.Option(help="best-worst: one pair a prompt; all: every two samples of a prompt.")
    ] = "best-worst",
    margin: Annotated[float, typer.Option(min=0, help="Smaller differences are ties and dropped, as is 0.")] = 0.0,
    only_right: Annotated[
        bool, typer.Option(help="The chosen sample must be right, by a scorer that judges so.")
    ] = False,
    sft: Annotated[
        Path | None, typer.Option(help="Also write the best sample of every prompt, a .jsonl for loss.name sft.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws which side of a row is the chosen one.")] = 0,
    device: Device = None,
    dtype: DType = None,
    batch_size: BatchSize = 16,
) -> None:
    """Turn samples into preference pairs that `sipo train` reads, by a scorer: AI feedback."""
    if mode not in ("best-worst", "all"):
        raise UsageError(f"--mode: {mode!r} is none of best-worst, all")
    quiet_libraries()
    from sipo.workflows_feedback import label_folders
    from sipo.workflows_judges import name_judges

    judges = name_judges([scorer], {scorer: weights} if weights else {}, device, dtype, batch_size)
    typer.echo(label_folders(folders, judges, mode, margin, only_right, out, sft, seed, console()))


@prompts.command("compose")
def prompts_compose(
    out: Annotated[Path, typer.Option(help="The .jsonl file to write, in GenEval's schema.")],
    num: Annotated[int, typer.Option(min=1, help="How many different prompts.")] = 5000,
    seed: Annotated[int, typer.Option()] = 0,
    world: Annotated[
        str, typer.Option(help="geneval: COCO's objects and GenEval's colours; or miniature.")
    ] = "geneval",
    tag: Annotated[list[str] | None, typer.Option(help="Only this category; as often as wanted.")] = None,
    avoid: Annotated[
        list[str] | None, typer.Option(help="A prompt file whose prompts must not come, such as GenEval's own.")
    ] = None,
) -> None:
    """Draw prompts from objects, colours, counts and positions, in GenEval's words and schema."""
    from sipo.workflows_compose import compose_prompts

    counts = compose_prompts(out, num, seed, world, tag or [], avoid or [])
    typer.echo(f"{num} prompts in {out}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))


def named(option: str, entries: list[str] | None) -> dict[str, str]:
    """NAME=VALUE, as often as given."""
    found = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not equals or not name or not value or name in found:
            raise UsageError(f"{option}: {entry!r} should be NAME=VALUE, each name once")
        found[name] = value
    return found
