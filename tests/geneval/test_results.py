"""Results per category, their mean, and the table, against sums done here by hand."""

import csv
import io
import json

import pytest

from sipo.errors import UserError
from sipo.geneval import results
from sipo.samples.metadata import CATEGORIES

ABOUT = {"name": "m", "prompts": "raw", "detector": "d"}
HEADINGS = ["Sin Obj.", "Two Obj.", "Counting", "Colors", "Position", "Color Attri.", "Overall"]


def records(right: dict[str, list[list[bool]]]) -> list[dict]:
    """By category the prompts, of each its pictures' verdicts."""
    return [
        {"tag": tag, "correct": correct, "metadata": json.dumps({"tag": tag, "prompt": i})}
        for tag, prompts in right.items()
        for i, verdicts in enumerate(prompts)
        for correct in verdicts
    ]


FULL = {
    "single_object": [[True, True], [True, True]], "two_object": [[True, False], [True, False]],
    "counting": [[True, False], [False, False]], "colors": [[True, True, True, False]],
    "position": [[False, False]], "color_attr": [[False] * 9 + [True]],
}  # fmt: skip


def test_overall_is_the_mean_of_six_shares_and_not_of_the_pictures():
    summary = results.summarise(records(FULL), ABOUT)
    shares = [1, 0.5, 0.25, 0.75, 0, 0.1]
    assert [summary["categories"][tag]["score"] for tag in CATEGORIES] == shares
    assert summary["overall"] == pytest.approx(sum(shares) / 6)
    assert summary["images"] == 28
    assert summary["correct_images"] == pytest.approx(11 / 28)
    assert summary["correct_prompts"] == pytest.approx(7 / 9)
    assert summary["num_prompts"] == 9
    assert summary["categories"]["color_attr"] == {"score": 0.1, "correct": 1, "images": 10}


def test_without_a_category_there_is_no_overall():
    for tag in CATEGORIES:
        summary = results.summarise(records({k: v for k, v in FULL.items() if k != tag}), ABOUT)
        assert summary["overall"] is None
        assert tag not in summary["categories"]
        assert results.table([summary])[0]["Overall"] is None
        assert results.as_markdown([summary]).count("–") == 2


def test_the_table_has_the_six_columns_and_overall():
    summary = results.summarise(records(FULL), ABOUT)
    (row,) = results.table([summary])
    assert list(row) == ["Model", *HEADINGS, "prompts", "detector"]
    assert (
        results.as_markdown([summary]).splitlines()[-1]
        == "| m | 1.00 | 0.50 | 0.25 | 0.75 | 0.00 | 0.10 | 0.43 | raw | d |"
    )
    (read,) = csv.DictReader(io.StringIO(results.as_csv([summary])))
    assert [float(read[name]) for name in HEADINGS] == [row[name] for name in HEADINGS]
    assert json.loads(results.as_jsonl([summary])) == row


def test_what_is_written_is_read(tmp_path):
    summary = results.write_results(tmp_path, records(FULL), ABOUT)
    assert results.read_summary(tmp_path) == summary
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl", "geneval.json", "geneval.md", "geneval.csv"}
    official = results.read_official(tmp_path / "results.jsonl")
    assert {**official, **ABOUT} == summary
    assert official["prompts"] == "not recorded"


def test_messages(tmp_path):
    with pytest.raises(UserError, match=r"has no geneval\.json: judge it first"):
        results.read_summary(tmp_path)
    for content in ("{", "[]", '{"name": "m"}'):
        (tmp_path / "geneval.json").write_text(content)
        with pytest.raises(UserError, match=r"geneval.json is not .*(?i:judge the folder again)"):
            results.read_summary(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"tag": "colors"}\n')
    with pytest.raises(UserError, match="expected a line a picture with tag, correct and metadata"):
        results.read_official(tmp_path / "results.jsonl")
