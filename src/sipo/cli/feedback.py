"""The commands that make data: pairs out of judgements, and prompts to draw samples for."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli.common import quiet_libraries, say, together
from sipo.cli.judging import BatchSize, Device, DType
from sipo.errors import UsageError
from sipo.registry import DEFAULT

prompts = typer.Typer(no_args_is_help=True, help="Prompts composed at random, with what a judge must check.")


def label(
    folders: Annotated[
        list[Path], typer.Argument(help="Samples, several a prompt; prompts are matched across the folders.")
    ],
    out: Annotated[Path, typer.Option(help="pairs.parquet (Pick-a-Pic's schema) or pairs.jsonl (paths).")],
    scorer: Annotated[str, typer.Option(help="Whose scores decide, as of `sipo score`.")] = DEFAULT,
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
    from sipo.evaluate.label.run import LabelRequest, label_folders
    from sipo.scorers.choice import choose_scorers

    own = [f"{scorer}={weights}"] if weights else []
    scorers = choose_scorers([scorer], own, (), device, dtype, batch_size)
    request = LabelRequest(folders, scorers, out, mode, margin, only_right, sft, seed)
    with together() as (processes, screen):
        shown = label_folders(request, screen, processes)
    say(shown)


@prompts.command("compose")
def prompts_compose(
    out: Annotated[Path, typer.Option(help="The .jsonl file to write, in GenEval's schema.")],
    num: Annotated[int, typer.Option(min=1, help="How many different prompts.")] = 5000,
    seed: Annotated[int, typer.Option()] = 0,
    world: Annotated[
        str, typer.Option(help="A name of `sipo list worlds`, such as geneval: COCO's objects in GenEval's colours.")
    ] = "geneval",
    tag: Annotated[list[str] | None, typer.Option(help="Only this category; repeatable.")] = None,
    avoid: Annotated[
        list[str] | None, typer.Option(help="A prompt file whose prompts are excluded, such as GenEval's own.")
    ] = None,
) -> None:
    """Draw prompts from objects, colours, counts and positions, in GenEval's words and schema."""
    from sipo.geneval.run import CATEGORIES, ComposeRequest, compose_prompts

    counts = compose_prompts(ComposeRequest(out, num, seed, world, tag or CATEGORIES, avoid or ()))
    say(f"{num} prompts in {out}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))
