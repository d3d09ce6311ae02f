"""A stage's folder is good for every recipe that differs only in what the stage does not depend on."""

from dataclasses import dataclass, field, replace

import pytest
from rich.console import Console

from sipo.errors import UserError
from sipo.mini.recipe import Schedule
from sipo.mini.stages import Stages
from sipo.mini.training import save_state


@dataclass(frozen=True)
class Clips:
    """The recipe of another miniature."""

    seed: int = 0
    first: Schedule = field(default_factory=lambda: Schedule(10, 2))
    second: Schedule = field(default_factory=lambda: Schedule(20, 2))
    shake: float = 0.5


def stages(folder, recipe):
    adds = {"first": ("seed", "first"), "second": ("second", "shake")}
    return Stages(folder, recipe, adds, Console(quiet=True))


@pytest.mark.parametrize(
    ("changes", "faulty"),
    [
        ({}, {}),
        ({"first": Schedule(99, 2), "second": Schedule(99, 2)}, {}),  # the steps alone
        ({"shake": 0.1}, {"second": "shake"}),
        ({"second": Schedule(20, 3)}, {"second": "second"}),
        ({"seed": 1}, {"first": "seed", "second": "seed"}),
        ({"seed": 1, "shake": 0.1}, {"first": "seed", "second": "seed, shake"}),
    ],
)
def test_a_stage_depends_on_its_own_part_and_those_before(tmp_path, changes, faulty):
    for name in ("first", "second"):
        stages(tmp_path, Clips()).open(name)
    other = stages(tmp_path, replace(Clips(), **changes))
    for name in ("first", "second"):
        if name in faulty:
            with pytest.raises(UserError, match=rf"changed: {faulty[name]}\): remove .*{name}"):
                other.open(name)
        else:
            other.open(name)


def test_the_account_is_what_the_checkpoints_and_logs_say(tmp_path):
    made = stages(tmp_path, Clips())
    for name, steps in (("first", 10), ("second", 20)):
        folder, log = made.open(name)
        save_state(folder / "state.pt", {"step": steps, "seconds": steps + 0.4})
        for step in range(1, steps + 1):
            log(step, {"loss": float(step)})
    account = made.account()
    assert account["steps"] == {"first": 10, "second": 20}
    assert account["seconds"] == {"first": 10, "second": 20}
    assert account["losses"]["first"]["loss"] == pytest.approx(5.5)
    assert account["losses"]["second"]["step"] == 20
