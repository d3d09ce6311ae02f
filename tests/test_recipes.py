"""The table of docs/recipes.md is what `sipo plan --fit` answers; its commands and keys exist."""

import re
from pathlib import Path

import pytest
from support.recipes import CARDS, CONFIGS, names, rows

from sipo.config import load_config
from sipo.plan.switches import switches

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| `[a-z0-9.-]+` \|", line)]


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_line_is_the_answer_of_the_plan(name):
    assert [line for line in ROWS if line.startswith(f"| `{name}` |")] == list(rows(name))


@pytest.mark.slow  # a new family's lines: PYTHONPATH=tests python -m support.recipes NAME
def test_every_config_has_a_line_for_every_card():
    found = [tuple(cell.strip(" `") for cell in line.split("|")[1:3]) for line in ROWS]
    assert sorted(found) == sorted((name, card) for name in names() for card in CARDS)


def test_what_the_table_adds_is_accepted_by_its_config():
    for line in ROWS:
        name, _, add = (cell.strip() for cell in line.split("|")[1:4])
        for typed in re.findall(r"`([^`]+)`", add):
            config = load_config(CONFIGS / f"{name.strip('`')}.yaml", typed.split())
            assert not {str(switch) for switch in switches(config)} & set(typed.split())  # they are on now


def test_the_commands_of_the_page_name_configs_and_keys_that_exist(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    joined = PAGE.replace("\\\n", " ")
    commands = re.findall(r"sipo train (configs/\S+)((?: +[a-z_.]+=\S+)*)", joined)
    assert len(commands) == 3
    for file, overrides in commands:
        load_config(file, overrides.split())
    of_text = re.findall(r"`((?:train|model|loss|sample|policy|timesteps)\.[a-z_.]+)=", PAGE)
    assert {"train.keep_best", "policy.start", "sample.batch_size"} <= set(of_text)
