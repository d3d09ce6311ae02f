"""Values that are hardly ever meant get a sentence each; every shipped config gets none."""

import re
from pathlib import Path

import pytest
import yaml

from sipo.config import parse_config
from sipo.config.notices import notices
from sipo.errors import UsageError

BASE = {"run": "r", "model": {"path": "miniature"}, "data": {"path": "miniature"}, "loss": {"name": "sipo"}}
SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("loss", {"name": "sipo", "prune_threshold": 2}, "loss.prune_threshold: 2 keeps"),
        ("loss", {"name": "dpo_cm", "prune_threshold": 1.1}, "loss.prune_threshold: 1.1 keeps"),
        ("loss", {"name": "diffusion_dpo", "beta": 5000}, r"loss.beta: 5000 times the horizon is 5e\+06.* is 5 here"),
        ("loss", {"name": "ipo", "beta": 101}, "loss.beta: 101 times"),
        ("data", {"path": "miniature", "label_smoothing": 0.5}, "data.label_smoothing: 0.5 .* learns nothing"),
        ("data", {"path": "miniature", "label_smoothing": 0.9}, "data.label_smoothing: 0.9 .* prefers the rejected"),
        ("data", {"path": "miniature", "prompt_dropout": 1.0}, "data.prompt_dropout: 1 drops every prompt"),
        ("train", {"num_steps": 100, "warmup_steps": 100}, "train.warmup_steps: 100 of 100 steps"),
        ("train", {"num_steps": 1000, "ema_decay": 0.9999}, "train.ema_decay: 0.9999 over 1,000 steps leaves 90% .* 0.99 leaves"),
    ],
)  # fmt: skip
def test_each_has_a_sentence(section, values, said):
    (found,) = notices(parse_config(BASE | {section: values}))
    assert re.match(said, found)


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("policy", {"alpha": 0}, "policy.alpha: found 0; expected more than 0"),
        ("data", {"path": "x", "resolution": 0}, "data.resolution: found 0; expected at least 1"),
        ("loss", {"name": "sipo", "beta": 0}, "loss.beta is 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(section, values, said):
    with pytest.raises(UsageError, match=said):
        parse_config(BASE | {section: values})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_published_settings_are_meant(path):
    assert notices(parse_config(yaml.safe_load(path.read_text()))) == []


def test_a_transition_horizon_has_no_beta_of_other_programs():
    loss = {"name": "sipo", "omega": "transition", "beta": 5000}
    assert notices(parse_config(BASE | {"loss": loss})) == []
