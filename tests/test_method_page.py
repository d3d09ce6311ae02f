"""The code and the numbers that docs/method.md shows."""

import math
import re
from pathlib import Path

import torch
from support.core import stable_diffusion

from sipo import DDIM, DiffusionDPO, beta_equivalents, previous_timestep, step_coefficient

PAGE = (Path(__file__).parents[1] / "docs/method.md").read_text()


def row(label: str) -> list[str]:
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["losses"].shape == (8,)
    assert names["unet"].weight.grad.isfinite().all()


def test_the_table_of_coefficients():
    t = torch.tensor([int(cell) for cell in row("$t$ ")])
    for steps, label in ((50, "coefficient, $K = 50$"), (1000, "coefficient, $K = 1000$")):
        found = step_coefficient(DDIM(), stable_diffusion(), t, previous_timestep(stable_diffusion(), t, steps))
        for value, printed in zip(found.tolist(), row(label), strict=True):
            assert not printed or abs(value / float(printed) - 1) < 0.01
    coefficients = step_coefficient(DDIM(), stable_diffusion(), t, previous_timestep(stable_diffusion(), t, 50))
    for value, printed in zip(coefficients.tolist(), row(r"$\epsilon$-mse"), strict=True):
        assert abs(-math.log(0.9) / value / float(printed) - 1) < 0.03


def test_the_table_of_betas():
    rows = re.findall(r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for paper, salesforce, diffusers in rows:
        found = beta_equivalents(DiffusionDPO(float(paper)))
        assert (found["salesforce"], found["diffusers"]) == (float(salesforce), float(diffusers))
