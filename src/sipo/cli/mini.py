"""`sipo mini`: the bundled miniatures."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sipo.cli.common import console, quiet_libraries, say, together
from sipo.errors import UsageError
from sipo.registry import DEFAULT

Name = Annotated[str, typer.Option(help="Which miniature: its name, as `sipo list miniatures` shows it.")]

mini = typer.Typer(
    no_args_is_help=True, help="The bundled miniatures: rebuild them, and make prompts and pairs for them."
)


@mini.command("build")
def mini_build(
    out: Annotated[Path, typer.Option(help="Folder for the pipeline, in diffusers layout.")],
    name: Name = DEFAULT,
    work: Annotated[Path | None, typer.Option(help="Folder for checkpoints and logs; default: OUT.build.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 (worth it with AMX or a GPU).")] = True,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile transformer blocks; needs a C++ compiler.")
    ] = False,
) -> None:
    """Train a miniature from nothing. Run the same command again to resume."""
    quiet_libraries()
    from sipo.mini.build import build

    build(_kind(name), out, work, device=device, bf16=bf16, compiled=compiled, console=console())


@mini.command("prompts")
def mini_prompts(
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl and heldout.jsonl.")],
    name: Name = DEFAULT,
    train: Annotated[int, typer.Option(min=1, help="Training prompts of each category.")] = 120,
    heldout: Annotated[int, typer.Option(min=1, help="Held-out prompts of each category.")] = 40,
) -> None:
    """Write the two disjoint prompt lists, the categories balanced; small categories repeat their prompts."""
    from sipo.mini.prompts import write_prompts

    kind = _kind(name)
    write_prompts(out, train, heldout, kind.prompts(), kind.held_out)
    number = len(kind.miniature.categories)
    console().print(f"{out}: {number * train} training prompts, {number * heldout} held-out prompts")


@mini.command("pairs")
def mini_pairs(
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    name: Name = DEFAULT,
    model: Annotated[
        str | None, typer.Option(help="A folder that `sipo mini build` made; default: the shipped weights.")
    ] = None,
    num_prompts: Annotated[int, typer.Option(min=1, help="Prompts drawn from all that are not held out.")] = 1000,
    candidates: Annotated[
        int, typer.Option(min=2, help="Pictures for each, of which the best and the worst are paired.")
    ] = 4,
    contrast: Annotated[
        Literal["any", "right", "both"],
        typer.Option(help="any: of all pictures; right: of the right ones, of which one is cleaner; or both."),
    ] = "both",
    seed: Annotated[int, typer.Option()] = 0,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16.")] = False,
    jpeg_quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Write pictures as JPEGs of this quality; default: as they are.")
    ] = None,
) -> None:
    """Sample pictures from the miniature, score them, and pair the better with the worse."""
    quiet_libraries()
    from sipo.mini.pairs import PairSettings, pairs_of_model
    from sipo.mini.prompts import split_prompts

    kind = _kind(name)
    prompts, _ = split_prompts(kind.prompts(), kind.held_out)
    settings = PairSettings(num_prompts, candidates, contrast=contrast, seed=seed, jpeg_quality=jpeg_quality)
    if jpeg_quality and kind.miniature.detector is None:
        raise UsageError(f"--jpeg-quality: {name} makes videos")
    with together() as (processes, screen):
        number = pairs_of_model(out, model or name, settings, bf16, screen, kind.miniature, prompts, processes)
    say(f"{number} pairs of {num_prompts} prompts in {out}")


@mini.command("foreign")
def mini_foreign(
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    num_pairs: Annotated[int, typer.Option(min=1, help="Pairs, of training prompts of all categories in turn.")] = 1000,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Draw pairs in a style that the miniature cannot draw: what the study `unlike` trains on."""
    from sipo.mini.foreign import write_foreign_pairs

    write_foreign_pairs(out, num_pairs, seed)
    say(f"{num_pairs} pairs in {out}")


def _kind(name: str):
    """How the miniature `name` is built. Raises UsageError for another name."""
    from sipo.mini.kinds import KINDS

    if name not in KINDS:
        raise UsageError(f"--name: {name!r} is none of {', '.join(KINDS)}")
    return KINDS[name]
