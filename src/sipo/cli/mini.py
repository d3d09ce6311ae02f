"""`sipo mini`: the bundled miniature."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli.common import console, quiet_libraries
from sipo.registry import DEFAULT

mini = typer.Typer(no_args_is_help=True, help="The bundled miniature: rebuild it, and make pairs with it.")


@mini.command("build")
def mini_build(
    out: Annotated[Path, typer.Option(help="Folder for the pipeline, in diffusers layout.")],
    work: Annotated[Path | None, typer.Option(help="Folder for checkpoints and logs; default: OUT.build.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 (worth it with AMX or a GPU).")] = True,
) -> None:
    """Train the miniature from nothing; stopped and run again, it goes on."""
    quiet_libraries()
    from sipo.mini.build import build

    build(out, work, device=device, bf16=bf16, console=console())


@mini.command("pairs")
def mini_pairs(
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    model: Annotated[str, typer.Option(help="miniature, or a folder that `sipo mini build` made.")] = DEFAULT,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts drawn from the training prompts.")] = 1400,
    candidates: Annotated[
        int, typer.Option(min=2, help="Pictures for each, of which the best and the worst are paired.")
    ] = 8,
    only_right: Annotated[
        bool, typer.Option("--only-right/--any", help="Of the right pictures (one is cleaner), or of all.")
    ] = True,
    seed: Annotated[int, typer.Option()] = 0,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16.")] = False,
) -> None:
    """Sample pictures from the miniature, score them, and pair the better with the worse."""
    quiet_libraries()
    from sipo.mini.pairs import PairSettings, pairs_of_model

    settings = PairSettings(num_prompts, candidates, only_right=only_right, seed=seed)
    typer.echo(f"{pairs_of_model(out, model, settings, bf16, console())} pairs of {num_prompts} prompts in {out}")
