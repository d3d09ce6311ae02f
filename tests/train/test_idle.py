"""Steps that teach nothing are said, once, and by what they leave."""

import io

import numpy as np
import pytest
from rich.console import Console
from support.configs import changed

from sipo.config import parse_config
from sipo.run import RunDir
from sipo.train.idle import Idle
from sipo.train.loop import train

PRUNED = {"pruned": np.ones(4), "sigmoid_neg_logit": np.full(4, 0.5)}
LEARNS = {"pruned": np.array([1, 1, 1, 0.0]), "sigmoid_neg_logit": np.array([0, 1, 0, 0.4])}
SATURATED = {"sigmoid_neg_logit": np.array([0, 1, 1e-5, 1 - 1e-5])}


def said(steps, window=3) -> list[int]:
    """The numbers of the steps after which a warning came."""
    idle = Idle(window)
    return [number for number, step in enumerate(steps, start=1) if idle.update(*step)]


@pytest.mark.parametrize(
    ("step", "words"),
    [((PRUNED, 0.0), "pruned"), ((SATURATED, 3.0), "saturated"), (({"loss": np.ones(4)}, 0.0), "exactly 0")],
)
def test_a_window_of_idle_steps_is_said_once(step, words):
    assert said([step] * 10) == [3]
    assert said([step] * 2 + [(LEARNS, 1.0)] + [step] * 4) == [6]
    assert words in [Idle(1).update(*step)][0]


def test_one_pair_that_learns_is_enough():
    assert said([(LEARNS, 1.0)] * 10) == []
    assert said([({"sigmoid_neg_logit": np.array([0, 0, 0.01])}, 1.0)] * 10) == []


def test_a_training_says_it(raw_config):
    screen = Console(file=io.StringIO(), width=400)
    raw = changed(raw_config, "loss.prune_threshold=50", "train.num_steps=20", "train.sample_every=0",
                  "train.validate_every=0", "train.checkpoint_every=20", "train.batch_size=1",
                  "train.gradient_accumulation=1")  # fmt: skip
    train(parse_config(raw), screen)
    printed = screen.file.getvalue()
    assert "notice: loss.prune_threshold: 50 keeps" in printed
    assert "step 20: every pair of the last 20 steps was pruned" in printed
    (warning,) = RunDir(raw["run"]).read_metrics("warning")
    assert warning["step"] == 20
