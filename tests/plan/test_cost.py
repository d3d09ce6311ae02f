"""What objectives cost: ratios of neighbouring steps, and a plan's memory."""

import numpy as np
import pytest
from rich.console import Console
from support.configs import changed

from sipo.errors import UsageError
from sipo.plan import against
from sipo.plan.cost import cost, render

QUIET = Console(quiet=True)


def test_the_time_is_the_ratio_of_neighbouring_steps_and_the_memory_a_plans(raw_config, monkeypatch):
    def step(training, number, stop):
        slow = 1.25 if type(training.objective).__name__ == "SIPO" else 1.0
        parts = dict.fromkeys(("total", "data", "reference", "policy", "other"), slow * number)
        return type("Update", (), {"seconds": parts})

    monkeypatch.setattr(against, "take_step", step)
    sipo, sft = cost(changed(raw_config, "loss.beta=0.5"), ["sipo", "sft"], 6, QUIET)
    assert np.median(sipo.contest.ratios) == pytest.approx(1.25)
    assert np.median(sft.contest.ratios) == pytest.approx(1.0)
    assert sipo.memory == sipo.standard_memory  # the importance weight needs no further pass
    assert sft.memory < sft.standard_memory  # one member of each pair
    table = render([sipo, sft])
    assert "| sipo | 8.125 | 1.250 [1.250, 1.250] | 6 | 1.000 |" in table  # steps 4 to 9, after the warm-up


@pytest.mark.slow
def test_real_steps_of_real_objectives(raw_config):
    (found,) = cost(raw_config, ["dpo_cm"], 3, QUIET)
    assert all(steps["policy"] > 0 for steps in (*found.contest.first, *found.contest.second))


def test_an_unknown_objective_is_refused(raw_config):
    with pytest.raises(UsageError, match=r"--objectives: .*sipoo"):
        cost(raw_config, ["sipoo"], 3, QUIET)
