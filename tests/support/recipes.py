"""The table of docs/recipes.md, out of `sipo plan --fit`: `PYTHONPATH=tests python -m support.recipes` prints it."""

import sys
from collections.abc import Iterator
from pathlib import Path

from sipo.config import load_config
from sipo.plan.fit import fit
from sipo.plan.gpus import GPUS
from sipo.plan.measure import Measurements

CONFIGS = Path(__file__).parents[2] / "configs"
CARDS = {"24 GB": ("rtx4090", 1), "48 GB": ("l40s", 1), "80 GB": ("a100-80", 1), "8 x 80 GB": ("a100-80", 8)}


def names() -> list[str]:
    """The configs of published models, one a family."""
    every = sorted(path.stem for path in CONFIGS.glob("*-sipo.yaml"))
    return [name for name in every if not name.startswith("miniature")]


def rows(name: str) -> Iterator[str]:
    """A line of the table for each size of card."""
    config, measurements = load_config(CONFIGS / f"{name}.yaml"), Measurements()
    for card, (gpu, count) in CARDS.items():
        answer = fit(config, GPUS[gpu], count, measurements)
        way = answer.best or answer.least
        typed = " ".join(map(str, way.switches))
        what = f"`{typed}`" if typed else "as it is"
        if answer.best is None:
            what = f"nothing fits; the least is {what}"
        elif way.changing:
            what += " (other numbers)"
        if answer.faster:
            ratio = answer.faster.plan.seconds / answer.before.plan.seconds
            what += f"; at {ratio:.2f} x with other numbers: `{' '.join(map(str, answer.faster.switches))}`"
        need, slower = way.layout.memory.total / 2**30, way.plan.seconds / answer.before.plan.seconds
        yield f"| `{name}` | {card} | {what} | {need:.1f} | {way.plan.seconds:.3g} | {slower:.2f} |"


if __name__ == "__main__":
    for each in sys.argv[1:] or names():
        for row in rows(each):
            print(row, flush=True)
