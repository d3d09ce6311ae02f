"""The command line: thin commands over the packages, which it alone connects."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sipo.cli_benchmarks import geneval, vbench
from sipo.cli_feedback import compare, label, named, prompts
from sipo.errors import UsageError, UserError

app = typer.Typer(
    name="sipo", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Align diffusion models with human preferences: SIPO, DPO-C&M, Diffusion-DPO, SFT.",
)  # fmt: skip
data = typer.Typer(no_args_is_help=True, help="Look at preference pairs before training, and encode them once.")
mini = typer.Typer(no_args_is_help=True, help="The bundled miniature: rebuild it, and make pairs with it.")
app.add_typer(data, name="data")
app.add_typer(mini, name="mini")
app.add_typer(prompts, name="prompts")
app.add_typer(geneval, name="geneval")
app.add_typer(vbench, name="vbench")

Overrides = Annotated[list[str] | None, typer.Argument(help="key.path=value, as often as wanted.", show_default=False)]
ConfigFile = Annotated[Path, typer.Argument(help="A YAML config; see configs/.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


@app.command()
def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Align a model. The same command run again resumes after the newest checkpoint."""
    from sipo.config import load_config

    parsed = load_config(config, overrides)
    _quiet_libraries()
    from sipo.evaluate.report import report as write_report
    from sipo.train.loop import train as run_training

    console = _console()
    run = run_training(parsed, console)
    import os

    if int(os.environ.get("RANK", 0)) == 0:
        write_report(run)
        console.print(f"weights: {run.weights}\nreport:  {run.report}", highlight=False, soft_wrap=True)


@app.command()
def generate(
    model: Annotated[
        str, typer.Argument(help="A run directory, or what model.path takes: miniature, a folder, a hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    prompts: Annotated[str, typer.Option(help="A .txt or .jsonl file of prompts, or miniature: its held-out ones.")],
    num_prompts: Annotated[int | None, typer.Option(help="Only the first so many.")] = None,
    images_per_prompt: Annotated[int, typer.Option()] = 1,
    seed: Annotated[int, typer.Option(help="The first picture's seed; picture i gets seed + i.")] = 0,
    num_inference_steps: Annotated[int | None, typer.Option(help="Default: the run's, else 25.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Default: the run's, else 7.5.")] = None,
    batch_size: Annotated[int, typer.Option()] = 8,
) -> None:
    """Make pictures from prompts, with a run's weights or any model. Stopped and run again, it goes on."""
    _quiet_libraries()
    from sipo.backbones.opening import open_for_sampling
    from sipo.samples.generate import generate as make
    from sipo.samples.prompts import read_prompts

    items = read_prompts(prompts, num_prompts, seed, images_per_prompt)
    opened = open_for_sampling(model, False, num_inference_steps, guidance_scale)
    make(opened.sampler, items, out, opened.settings, batch_size, _console())
    typer.echo(f"{len(items)} pictures in {out}")


app.command()(compare)
app.command()(label)


@app.command()
def score(
    path: Annotated[
        Path, typer.Argument(help="A run, a folder that `sipo generate` made, or any folder of pictures or videos.")
    ],
    scorer: Annotated[
        list[str] | None, typer.Option(help="pickscore, hpsv2, hpsv2.1, imagereward, aesthetic, clip or miniature.")
    ] = None,
    weights: Annotated[list[str] | None, typer.Option(help="NAME=PATH or NAME=HUB-ID, of a scorer.")] = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="NAME=COMMAND of a scorer in its own environment; see docs/scorers.md.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="The folder's prompts: .txt, or .jsonl with file and prompt.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of a video of which a scorer of pictures takes the mean.")] = 8,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: a GPU where there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.NAME.jsonl; default: beside the media.")] = None,
) -> None:
    """Score pictures or videos. Stopped and run again, it goes on. Exits with 1 when files could not be read."""
    _quiet_libraries()
    from sipo.evaluate.media_folders import find_media
    from sipo.evaluate.score_table import print_scores, score_folders
    from sipo.workflows import load_scorers

    judges = load_scorers(scorer or [], named("--weights", weights), named("--worker", worker), device, dtype,
                          batch_size, frames)  # fmt: skip
    console = _console()
    results = score_folders(find_media(path, prompts), judges, batch_size, console, out)
    print_scores(results, console)
    if any(result.failed for result in results):
        raise typer.Exit(1)


@app.command()
def report(run: RunFolder) -> None:
    """Write the run's report.html anew, from what its directory holds."""
    from sipo.evaluate.report import report as write_report
    from sipo.evaluate.report import summary
    from sipo.run import RunDir

    opened = RunDir(run).require()
    write_report(opened)
    typer.echo(summary(opened))


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A new folder for the weights.")],
    step: Annotated[int | None, typer.Option(help="A kept checkpoint; default: the newest.")] = None,
) -> None:
    """Write the weights of another checkpoint, for plain diffusers."""
    _quiet_libraries()
    from sipo.run import RunDir
    from sipo.train.export import export as write

    typer.echo(f"step {write(RunDir(run), step, out)} in {out}")


@app.command()
def benchmark(
    config: ConfigFile,
    overrides: Overrides = None,
    num_steps: Annotated[int, typer.Option(help="Counted steps of each variant and round.")] = 20,
    rounds: Annotated[int, typer.Option(help="Each variant is run so many times, in turn.")] = 3,
) -> None:
    """Seconds per step, split by part: SIPO against Diffusion-DPO, with and without a cache."""
    from sipo.config import load_config

    raw = load_config(config, overrides).to_dict()
    _quiet_libraries()
    from sipo.benchmark import benchmark as measure
    from sipo.benchmark import render

    console = _console()
    render(measure(raw, num_steps, rounds, console), console)


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="The GPU to plan for, such as h100, a100-80, rtx4090.")] = "h100",
    gpus: Annotated[str, typer.Option(help="How many of them: one number, or several as 1,2,4,8.")] = "1",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """What a training would need: parameters, memory by part, FLOPs and the least time per step. No weights are read."""
    import json

    from sipo.config import load_config
    from sipo.files import write_atomic
    from sipo.plan.gpus import named_gpu

    counts = gpus.replace(" ", "").split(",")
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise UsageError(f"--gpus: {gpus!r} should be numbers of GPUs, such as 1,2,4,8")
    parsed, chosen = load_config(config, overrides), named_gpu(gpu)
    _quiet_libraries()
    from sipo.plan.plan import make_plan
    from sipo.plan.report import render, to_dict

    made = make_plan(parsed, chosen, sorted({int(count) for count in counts}))
    render(made, _console())
    if json_file:
        write_atomic(json_file, json.dumps(to_dict(made), indent=2))


@app.command()
def rehearse(
    config: ConfigFile,
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="Where random weights and noise are written, and kept.")] = Path(
        "runs/rehearsal"
    ),
    num_steps: Annotated[int, typer.Option(help="The first is not counted where there are more.")] = 3,
) -> None:
    """A few steps at full size with random weights and noise: seconds and peak memory, against the plan. No download."""
    from sipo.config import load_config
    from sipo.plan.gpus import named_gpu

    parsed = load_config(config, overrides)
    _quiet_libraries()
    from sipo.plan.plan import make_plan
    from sipo.rehearsal import rehearse as run_rehearsal
    from sipo.rehearsal import render

    plan = make_plan(parsed, named_gpu("h100"), [1])  # its time is not shown, so any GPU will do
    render(run_rehearsal(parsed, folder, num_steps, _console()), plan, _console())


@data.command("check")
def data_check(
    path: Annotated[str, typer.Argument(help="Parquet shards, a datasets folder, a JSONL manifest, or miniature.")],
    ties: Annotated[str, typer.Option(help="drop: left out; error: reported as bad rows.")] = "drop",
    max_pairs: Annotated[int | None, typer.Option(help="Look at the first so many rows.")] = None,
    max_pixels: Annotated[int, typer.Option(help="Larger images and frames are reported, not decoded.")] = 64_000_000,
    num_frames: Annotated[int | None, typer.Option(help="Frames of the video model: shorter videos are bad.")] = None,
    fps: Annotated[float | None, typer.Option(help="Rate of the video model; needed with --num-frames.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Name every bad row, not the first few of a kind.")] = False,
) -> None:
    """Go through every row and report all that is wrong. Exits with 1 when rows are bad."""
    import json

    from sipo.data.check import check_pairs
    from sipo.files import write_atomic
    from sipo.size import Size

    if (num_frames is None) != (fps is None):
        raise UsageError("--num-frames and --fps say how long a model's videos are together: give both or neither")
    size = None
    if num_frames is not None and fps is not None:
        if num_frames < 1 or fps <= 0:
            raise UsageError("--num-frames and --fps must be positive")
        size = Size(height=1, width=1, num_frames=num_frames, fps=fps)  # pixels do not matter to the check
    found = check_pairs(path, ties, max_pairs, max_pixels, size=size)
    found.render(_console(), None if all_rows else 5)
    if json_file:
        write_atomic(json_file, json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    if found.num_bad:
        raise typer.Exit(1)


@data.command("encode")
def data_encode(config: ConfigFile, overrides: Overrides = None) -> None:
    """Encode the pairs of a config into its data.cache, as `train` would; stopped and run again, it goes on."""
    from sipo.config import load_config

    parsed = load_config(config, overrides)
    if parsed.data.cache is None:
        raise UsageError("data.cache: name the folder to encode into, in the config or as data.cache=FOLDER")
    _quiet_libraries()
    from sipo.train.inputs import open_inputs, open_rows
    from sipo.train.setup import load_model, make_accelerator

    console, accelerator = _console(), make_accelerator(parsed)
    train_rows, validation_rows, _ = open_rows(parsed, console)
    inputs = open_inputs(parsed, train_rows, validation_rows, load_model(parsed, accelerator), accelerator, console)
    typer.echo(f"{len(inputs.train)} pairs in {parsed.data.cache}")


@mini.command("build")
def mini_build(
    out: Annotated[Path, typer.Option(help="Folder for the pipeline, in diffusers layout.")],
    work: Annotated[Path | None, typer.Option(help="Folder for checkpoints and logs; default: OUT.build.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16 (worth it with AMX or a GPU).")] = True,
) -> None:
    """Train the miniature from nothing; stopped and run again, it goes on."""
    _quiet_libraries()
    from sipo.mini.build import build

    build(out, work, device=device, bf16=bf16, console=_console())


@mini.command("pairs")
def mini_pairs(
    out: Annotated[Path, typer.Option(help="The parquet file to write.")],
    model: Annotated[str, typer.Option(help="miniature, or a folder that `sipo mini build` made.")] = "miniature",
    num_prompts: Annotated[int, typer.Option(help="Prompts drawn from the training prompts.")] = 1400,
    candidates: Annotated[int, typer.Option(help="Pictures for each, of which the best and the worst are paired.")] = 8,
    only_right: Annotated[
        bool, typer.Option("--only-right/--any", help="Of the right pictures (one is cleaner), or of all.")
    ] = True,
    seed: Annotated[int, typer.Option()] = 0,
    bf16: Annotated[bool, typer.Option(help="Compute in bfloat16.")] = False,
) -> None:
    """Sample pictures from the miniature, score them, and pair the better with the worse."""
    _quiet_libraries()
    from sipo.backbones import resolve_path
    from sipo.mini.pairs import PairSettings, make_pairs
    from sipo.mini.pipeline import load_pipeline

    settings = PairSettings(num_prompts, candidates, only_right=only_right, seed=seed)
    make_pairs(out, load_pipeline(Path(resolve_path(model))), settings, bf16, console=_console())


def main() -> None:
    """Entry point: a user's mistake is a message and an exit code, never a traceback."""
    try:
        app()
    except UsageError as error:
        _complain(error, 2)
    except UserError as error:
        _complain(error, 1)
    except KeyboardInterrupt:
        _complain("stopped", 130)


def _complain(error: object, code: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
    sys.exit(code)


def _console():
    from rich.console import Console

    return Console()


def _quiet_libraries() -> None:
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):  # they speak while they are imported, too
        os.environ.setdefault(name, "error")
    from sipo.backbones.quiet import quiet_libraries

    quiet_libraries()
