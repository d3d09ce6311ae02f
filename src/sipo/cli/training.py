"""The commands that train, and say what a training costs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from sipo.cli.common import ConfigFile, Overrides, RunFolder, console, quiet_libraries, say
from sipo.errors import UsageError

if TYPE_CHECKING:
    from sipo.config import Config
    from sipo.plan.gpus import Gpu


def train(config: ConfigFile, overrides: Overrides = None) -> None:
    """Align a model. The same command run again resumes after the newest checkpoint."""
    from sipo.config import load_config
    from sipo.run import RunDir

    parsed, screen, is_main = load_config(config, overrides), console(), int(os.environ.get("RANK", 0)) == 0
    run = RunDir(Path(parsed.run))
    if run.is_complete(parsed):  # answered before the libraries of models are imported
        if is_main:
            steps = f": {parsed.train.num_steps} steps are done; train.num_steps may grow"
            screen.print(Text.assemble(("complete", "green"), steps))
    else:
        quiet_libraries()
        from sipo.plan.shortage import explained
        from sipo.train.loop import train as run_training

        with explained(parsed):
            run = run_training(parsed, screen)
    if is_main:
        if not run.has_current_report():
            from sipo.evaluate.report.report import report as write_report

            write_report(run)
        screen.print(f"weights: {run.weights}\nreport:  {run.report}", highlight=False, soft_wrap=True)


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A new folder; with --merge also one file, NAME.safetensors.")],
    step: Annotated[int | None, typer.Option(help="A kept checkpoint; default: the newest.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best weights by the score of train.keep_best.")] = False,
    form: Annotated[
        str | None,
        typer.Option("--format", help="Adapters for: diffusers, kohya, comfyui; default: as in RUN/weights."),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="The whole pipeline, adapters merged into it.")] = False,
) -> None:
    """Write the weights of another checkpoint, for plain diffusers or another program."""
    if form not in (None, "diffusers", "kohya", "comfyui"):
        raise UsageError(f"--format: {form!r} is none of diffusers, kohya, comfyui")
    if best and step is not None:
        raise UsageError("--best: a step is given too; choose one of them")
    quiet_libraries()
    from sipo.run import RunDir
    from sipo.train.export import export as write

    made = write(RunDir(run), step, out, best, form, merge)  # pyright: ignore[reportArgumentType]  # judged above
    say(f"step {made} in {out}")


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="The GPU to plan for, such as h100, a100-80, rtx4090.")] = "h100",
    gpus: Annotated[str, typer.Option(help="How many of them: one number, or several as 1,2,4,8.")] = "1",
    fit: Annotated[
        bool,
        typer.Option(
            "--fit", help="Instead: the cheapest switches by which it fits, their price in time, and what to type."
        ),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """What a training would need: parameters, memory by part, FLOPs and the least time per step. No weights are read."""
    import json

    from sipo.config import load_config
    from sipo.config.notices import notices
    from sipo.files import write_atomic
    from sipo.plan.gpus import named_gpu

    counts = gpus.replace(" ", "").split(",")
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise UsageError(f"--gpus: {gpus!r} should be numbers of GPUs, such as 1,2,4,8")
    parsed, chosen = load_config(config, overrides), named_gpu(gpu)
    quiet_libraries()
    from sipo.plan.plan import make_plan
    from sipo.plan.report import render, to_dict

    for notice in notices(parsed):
        say(f"notice: {notice}")
    if fit:
        _fit(parsed, chosen, counts, " ".join([str(config), *(overrides or [])]), json_file)
        return
    made = make_plan(parsed, chosen, sorted({int(count) for count in counts}))
    render(made, console())
    if json_file:
        write_atomic(json_file, json.dumps(to_dict(made), indent=2))


def _fit(config: "Config", gpu: "Gpu", counts: list[str], typed: str, json_file: Path | None) -> None:
    import json

    from sipo.files import write_atomic
    from sipo.plan.fit import fit, render, to_dict

    if len(counts) != 1:
        raise UsageError(f"--fit: one number of GPUs, not --gpus {','.join(counts)}")
    with console().status("trying every set of switches"):
        answer = fit(config, gpu, int(counts[0]))
    render(answer, typed, console())
    if json_file:
        write_atomic(json_file, json.dumps(to_dict(answer), indent=2))


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
    quiet_libraries()
    from sipo.plan.plan import make_plan
    from sipo.plan.rehearsal import rehearse as run_rehearsal
    from sipo.plan.rehearsal import render
    from sipo.plan.shortage import explained

    plan = make_plan(parsed, named_gpu("h100"), [1])  # its time is not shown, so any GPU will do
    with explained(parsed):
        rehearsed = run_rehearsal(parsed, folder, num_steps, console())
    render(rehearsed, plan, console())


def benchmark(
    config: ConfigFile,
    overrides: Overrides = None,
    num_steps: Annotated[int, typer.Option(min=1, help="Counted steps of each variant and round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="How often each variant is run, in turn.")] = 3,
    pairs: Annotated[
        str | None,
        typer.Option(help="Instead: how the costs of data grow, on so many made-up pairs, such as 1000,100000."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another config: steps of both in turn; overrides are for both.")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="Objectives, such as sipo,dpo_cm: steps of each in turn with Diffusion-DPO's, and a plan's memory."
        ),
    ] = None,
    loading: Annotated[
        int | None,
        typer.Option(
            min=2, help="Instead: pairs a second of so many of the config's own, decoded, encoded and cached."
        ),
    ] = None,
) -> None:
    """Seconds per step, split by part: SIPO against Diffusion-DPO, with and without a cache; two configs, or objectives, in turn."""
    from sipo.config import load_config

    if sum(each is not None for each in (pairs, against, objectives, loading)) > 1:
        raise UsageError("--pairs, --against, --objectives and --loading measure different things: give one of them")
    counts = (pairs or "").replace(" ", "").split(",") if pairs is not None else []
    if not all(count.isdecimal() and int(count) >= 100 for count in counts):
        raise UsageError(f"--pairs: {pairs!r} should be numbers of at least 100, such as 1000,100000")
    raw = load_config(config, overrides).to_dict()
    other = load_config(against, overrides).to_dict() if against else None
    quiet_libraries()
    if counts:
        from sipo.plan.growth import measure_growth
        from sipo.plan.growth import render as render_growth

        render_growth(measure_growth(raw, [int(count) for count in counts], console()), console())
        return
    if loading:
        from sipo.plan.loading import measure_loading
        from sipo.plan.loading import render as render_rates

        workers = sorted({0, 1, raw["data"]["workers"]})
        say(render_rates(measure_loading(raw, loading, workers, console())), nl=False)
        return
    if objectives:
        from sipo.plan.cost import cost
        from sipo.plan.cost import render as render_costs

        names = [name.strip() for name in objectives.split(",")]
        say(render_costs(cost(raw, names, num_steps * rounds, console())))
        return
    if against and other:
        from sipo.plan.against import compete
        from sipo.plan.against import render as render_contest

        contest = compete(raw, other, num_steps * rounds, console())
        render_contest(contest, (str(config), str(against)), console())
        return
    from sipo.plan.benchmark import benchmark as measure
    from sipo.plan.benchmark import render

    screen = console()
    render(measure(raw, num_steps, rounds, screen), screen)
