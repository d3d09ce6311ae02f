"""Verdicts of people through all that compares scores: categories, corrections, files and pages, with nothing measured."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sipo.evaluate.compare.contest import Contest
from sipo.evaluate.compare.files import read_comparison, write_contest
from sipo.evaluate.compare.matches import Match, compare_matches
from sipo.evaluate.statistics.significance import holm
from sipo.evaluate.statistics.verdicts import Verdict, tally
from sipo.samples.folder import PromptItem, read_samples
from sipo.samples.generate import generate

PROMPTS = [PromptItem(f"prompt {i}", i, {"kind": "even" if i % 2 == 0 else "odd"}) for i in range(24)]


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Three models, each of another colour."""
    return [
        generate(
            lambda prompts, seeds, colour=colour: [Image.new("RGB", (8, 8), colour) for _ in prompts],
            PROMPTS,
            tmp_path / colour,
            {"model": colour},
        )
        for colour in ("red", "green", "blue")
    ]


def voted(a: Path, b: Path, seed: int):
    results = np.random.default_rng(seed).choice(["win", "tie", "loss"], len(PROMPTS), p=[0.6, 0.1, 0.3])
    matches = [
        Match(Verdict(s.prompt, s.seed, result, category=s.metadata["kind"]), (s, t))
        for s, t, result in zip(read_samples(a), read_samples(b), results.tolist(), strict=True)
    ]
    return compare_matches(matches, "people", (a.name, b.name), (a, b))


def test_votes_are_counted_by_category_and_nothing_is_invented(folders):
    comparison = voted(*folders[:2], seed=0)
    verdicts = [match.verdict for match in comparison.matches]
    assert comparison.overall.tally == tally(verdicts)
    assert comparison.overall.means is None
    assert comparison.overall.significance.p_mean is None
    for kind in ("even", "odd"):
        assert comparison.categories[kind].tally == tally([v for v in verdicts if v.category == kind])


def test_p_values_of_several_comparisons_are_corrected(folders):
    found = Contest((voted(folders[0], folders[1], 1), voted(folders[0], folders[2], 2)))
    p_sign = [each.overall.significance.p_sign for each in found.comparisons]
    assert found.adjusted() == list(zip([None, None], holm(p_sign), strict=True))


def test_votes_need_neither_torch_nor_scipy_nor_a_scorer():
    """A server that collects votes imports this."""
    code = (
        "import sys, sipo.evaluate.compare.files, sipo.evaluate.label.files\n"
        "print(sorted({'torch', 'scipy', 'matplotlib', 'sipo.scorers', 'sipo.backbones'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_files_and_page_of_votes(folders, tmp_path):
    found = Contest((voted(folders[0], folders[1], 1), voted(folders[0], folders[2], 2)))
    page = write_contest(found, tmp_path / "out").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json", "comparison.html", "comparison.md", "comparison.csv"
    }  # fmt: skip
    record = read_comparison(tmp_path / "out")
    assert json.dumps(record, allow_nan=False)
    first = record["comparisons"][0]
    assert [pair["verdict"] for pair in first["pairs"]] == [m.verdict.result for m in found.comparisons[0].matches]
    assert {pair["difference"] for pair in first["pairs"]} == {None}
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    assert [row["against"] for row in rows] == ["green"] * 3 + ["blue"] * 3
    for row, outcome in zip(
        rows, [o for c in found.comparisons for o in (c.overall, *c.categories.values())], strict=True
    ):
        assert float(row["win_rate"]) == pytest.approx(outcome.tally.win_rate.value)
        assert {row[key] for key in ("mean_model", "difference", "difference_low", "p_mean", "p_mean_holm")} == {""}
    assert float(rows[0]["p_sign"]) == pytest.approx(found.comparisons[0].overall.significance.p_sign)
    for words in ("by people", "By category", "Where red wins", "Where red loses", "method for 2 comparisons"):
        assert words in page
    text = re.sub(r'"data:[^"]*"', "", page)
    for words in ("None", "nan", "score difference is 0", "gains most", "Mean scores"):
        assert words not in text
    assert page.count("<img") == 2 * sum(
        min(8, sum(m.verdict.result == result for m in each.matches))
        for each in found.comparisons
        for result in ("win", "loss")
    )
