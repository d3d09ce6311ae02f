"""A plan for people (tables in the terminal) and for programs (plain dictionaries)."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipo.plan.memory import Memory
from sipo.plan.plan import Layout, Plan, StepFlops

GIB = 2**30
PARTS = {  # field of Memory -> what it is called
    "weights": "frozen weights",
    "trained": "trained weights, float32",
    "weight_copies": "their copies in the compute dtype",
    "reference": "reference, a frozen copy",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "average": "moving average",
    "encoders": "VAE and text encoders (no cache)",
    "activations": "activations (estimate)",
    "communication": "communication between GPUs",
}
STEP = {
    "policy_forward": "policy, forward",
    "policy_backward": "policy, backward",
    "recomputed": "policy, forward again (gradient checkpointing)",
    "reference_forward": "reference, forward",
    "encoders": "VAE and text encoders (no cache)",
}


def to_dict(plan: Plan) -> dict[str, Any]:
    """Everything, in parameters, bytes, FLOPs and seconds."""
    layouts = [
        {"num_gpus": layout.num_gpus, "kind": layout.kind, "pairs_per_step": layout.pairs,
         "bytes_per_gpu": {**asdict(layout.memory), "total": layout.memory.total}, "fits": plan.fits(layout)}
        for layout in plan.layouts
    ]  # fmt: skip
    return {
        "model": plan.model,
        "size": asdict(plan.size),
        "parameters": {"denoiser": plan.parameters, "trained": plan.trained, "encoders": plan.encoder_parameters},
        "flops": {"forward_per_sample": plan.forward_flops, **asdict(plan.step), "step": plan.step.total},
        "gpu": asdict(plan.gpu),
        "seconds_per_step_at_least": plan.seconds,
        "seconds": {"computing": plan.computing, "dequantizing": plan.dequantizing, "moving": plan.moving},
        "activation_bytes": {"plain": plan.activations, "checkpointed": plan.checkpointed},
        "cache_bytes": None if plan.cache is None else asdict(plan.cache) | {"pairs_in_all": plan.cache.pairs_in_all},
        "layouts": layouts,
    }


def render(plan: Plan, console: Console) -> None:
    """Parameters, FLOPs and memory of one GPU, then a line for each number of GPUs."""
    share = plan.trained / plan.parameters

    def line(text: str | Text, style: str = "") -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True)

    line(Text.assemble((plan.model, "bold"), f" at {plan.size}"))
    line(
        f"parameters: {plan.parameters:,} in the denoiser, {plan.trained:,} trained ({share:.2%}), "
        f"{plan.encoder_parameters:,} in VAE and text encoders\n"
        f"one forward of one sample: {_number(plan.forward_flops / 1e9)} GFLOP"
    )
    console.print(_table("one optimizer step on one GPU", "TFLOP", STEP, plan.step, 1e12))
    first = plan.layouts[0]
    where = "one GPU" if first.num_gpus == 1 else f"each of {first.num_gpus} GPUs"
    console.print(_table(f"memory on {where}", "GiB", PARTS, first.memory, GIB))
    line(f"activations: {_number(plan.activations / GIB)} GiB without gradient checkpointing, "
         f"{_number(plan.checkpointed / GIB)} GiB with it")  # fmt: skip
    if plan.dequantizing or plan.moving:
        line(f"seconds: {plan.computing:.3g} computing, {plan.dequantizing:.2g} dequantising, {plan.moving:.3g} moving offloaded "
             "blocks, beside the others")  # fmt: skip
    for layout in plan.layouts:
        line(_line(plan, layout))
    if cache := plan.cache:
        known = (
            ""
            if cache.pairs is None
            else f"; {cache.pairs:,} pairs take {_number((cache.pairs_in_all or 0) / GIB)} GiB"
        )
        prompt = f", and {_number(cache.prompt / 1024)} KiB a different prompt" if cache.prompt else ""
        line(f"cache in {cache.dtype}: {_number(cache.pair / 1024)} KiB a pair{known}{prompt}")
    line(f"The time is a floor: FLOPs over the {plan.gpu.name}'s peak; real runs reach 30 to 60% of it. Not counted in "
         "memory: CUDA's context, fragmentation, workspaces (docs/plan.md).", style="dim")  # fmt: skip


def _number(value: float) -> str:
    """Two decimals, or as many as a small value needs for two digits."""
    return f"{value:,.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _table(title: str, unit: str, names: dict[str, str], values: StepFlops | Memory, scale: float) -> Table:
    """The fields that are not zero, and their total."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column(unit, justify="right")
    for field, name in names.items():
        if value := getattr(values, field):
            table.add_row(name, _number(value / scale))
    table.add_row("total", _number(values.total / scale), style="bold")
    return table


def _line(plan: Plan, layout: Layout) -> Text:
    """Such as `8 x h100, sharded: 31.2 of 79.6 GiB each, fits; 512 pairs a step in at least 4.1 s`."""
    kind = f", {'DDP' if layout.kind == 'ddp' else layout.kind}" if layout.num_gpus > 1 else ""
    verdict = ("fits", "green") if plan.fits(layout) else ("does not fit", "red")
    pairs = f"{layout.pairs:,} pair{'s' if layout.pairs > 1 else ''}"
    return Text.assemble(
        f"{layout.num_gpus} x {plan.gpu.name}{kind}: {_number(layout.memory.total / GIB)} of {plan.gpu.memory:g} GiB each, ",
        verdict,
        f"; {pairs} a step in at least {plan.seconds:.3g} s",
    )
