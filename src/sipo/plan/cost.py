"""What each objective costs: its steps in turn with Diffusion-DPO's, on the same pairs, and the memory that a plan gives it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from sipo import registry
from sipo.config import parse_config
from sipo.plan.against import Contest, compete, median_interval
from sipo.plan.gpus import named_gpu
from sipo.plan.plan import make_plan
from sipo.tables import markdown_table

STANDARD = "diffusion_dpo"


@dataclass(frozen=True)
class Cost:
    """Of one objective: its steps against Diffusion-DPO's, and the bytes that a step of each takes by `sipo plan`."""

    name: str
    contest: Contest
    memory: float
    standard_memory: float


def cost(raw: dict[str, Any], objectives: Sequence[str], num_steps: int, console: Console) -> list[Cost]:
    """`num_steps` counted steps of each objective, at its defaults but for the config's beta, and as many of Diffusion-DPO.

    `raw` is a config as YAML gives it. Raises UsageError for an unknown objective before anything is timed.
    """
    beta = {"beta": raw["loss"]["beta"]} if "beta" in raw["loss"] else {}
    standard = {**raw, "loss": {"name": STANDARD, **beta}}
    variants = {name: {**raw, "loss": {"name": name, **_taken(name, beta)}} for name in objectives}
    memory = {name: _memory(variant) for name, variant in {STANDARD: standard, **variants}.items()}
    return [
        Cost(name, compete(standard, variant, num_steps, console), memory[name], memory[STANDARD])
        for name, variant in variants.items()
    ]


def render(costs: Sequence[Cost]) -> str:
    """A Markdown table."""
    lines = []
    for each in costs:
        low, high = median_interval(each.contest.ratios)
        ratio, seconds = statistics.median(each.contest.ratios), [step["total"] for step in each.contest.second]
        lines.append(
            [each.name, f"{statistics.median(seconds):.3f}", f"{ratio:.3f} [{low:.3f}, {high:.3f}]", f"{len(seconds)}",
             f"{each.memory / each.standard_memory:.3f}"]
        )  # fmt: skip
    return markdown_table(
        ["objective", "s a step", "time / Diffusion-DPO's", "steps", "memory / Diffusion-DPO's (plan)"],
        lines,
        left=["objective"],
    )


def _taken(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that the objective has."""
    fields = registry.objectives.load(name, "--objectives").__dataclass_fields__
    return {key: value for key, value in settings.items() if key in fields}


def _memory(raw: dict[str, Any]) -> float:
    return make_plan(parse_config(raw), named_gpu("h100"), [1]).layouts[0].memory.total
