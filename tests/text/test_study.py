"""The toy study of examples/text: its task, its log-probabilities and a small run; docs/text.md prints its table."""

import csv
import random
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def modules(monkeypatch):
    """`sorting` and `study` as the script imports them."""
    monkeypatch.syspath_prepend(ROOT / "examples/text")
    import sorting
    import study

    yield sorting, study
    for name in ("sorting", "study"):
        sys.modules.pop(name)


def test_a_mistake_is_a_mistake(modules):
    sorting, _ = modules
    draw = random.Random(0)
    for prompt in sorting.prompts(300, seed=1):
        answer = sorting.right(prompt)
        assert answer == sorted(set(answer))
        assert set(answer) == set(prompt)
        assert sorting.spoiled(answer, draw) != answer or len(answer) == sorting.DIGITS


def test_log_probabilities_are_those_of_each_row_alone(modules):
    sorting, _ = modules
    model = sorting.base(seed=0, steps=1)
    asked, answers = sorting.prompts(3, seed=2), [[1], [2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7]]
    rows = sorting.batch_of(asked, answers)
    found = sorting.log_probs(model, rows)
    for i, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
        row = torch.tensor([[*prompt, sorting.ASK, *answer, sorting.END]])
        alone = model(row).logits.log_softmax(-1)[0, :-1].gather(1, row[0, 1:, None])[sorting.DIGITS :, 0]
        torch.testing.assert_close(found[i][rows.mask[i]], alone)


def test_a_run_writes_its_files_and_continues(modules, monkeypatch, tmp_path):
    sorting, study = modules
    for name, value in (("DIGITS", 2), ("LENGTH", 6)):
        monkeypatch.setattr(sorting, name, value)
    monkeypatch.setattr(study, "base", cache(sorting.base))
    grid = [("SFT", 0.0), ("DPO", 2.0), ("SIPO, token", 0.1)]
    monkeypatch.setattr(study, "GRID", grid)
    options = ["--pretrain", "80", "--pairs", "20", "--held-out", "20", "--steps", "2", "--every", "1", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", ["study.py", "--out", str(tmp_path), *options])
    study.main()
    text = (tmp_path / "text.csv").read_text()
    lines = list(csv.DictReader(text.splitlines()))
    assert [(line["objective"], line["step"]) for line in lines] == [(n, str(s)) for n, _ in grid for s in range(3)]
    assert len({line["chosen"] for line in lines if line["step"] == "0"}) == 1
    sft = [float(line["chosen"]) for line in lines if line["objective"] == "SFT"]
    assert sft[2] > sft[0]
    assert (tmp_path / "text.png").stat().st_size > 10_000
    shorter = "".join(line + "\n" for line in text.splitlines()[:7])  # as if stopped before the third run
    (tmp_path / "text.csv").write_text(shorter)
    monkeypatch.setattr(study, "draw", lambda *args: None)
    study.main()
    assert (tmp_path / "text.csv").read_text() == text


def test_the_page_prints_the_table_of_the_committed_lines(modules):
    _, study = modules
    with (ROOT / "docs/results/text.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 7 * 3 * len(study.GRID)
    assert study.table(lines) in (ROOT / "docs/text.md").read_text()
