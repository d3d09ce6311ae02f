"""Several models by several scorers, against the paper's own table and against comparisons two by two."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from sipo.errors import UserError
from sipo.evaluate.compare.contest import contest
from sipo.evaluate.compare.files import contest_record, read_comparison, write_contest
from sipo.evaluate.compare.matches import Side
from sipo.evaluate.pages.comparison_text import comparison_csv, comparison_markdown, means_csv, means_table
from sipo.evaluate.pages.words import cautions
from sipo.evaluate.scores.files import Score
from sipo.evaluate.statistics.significance import holm
from sipo.samples.folder import Sample

PAPER = """SD-1.5 0.2699 5.7691 0.8159 21.1983 7.0133
SFT 0.2749 5.9451 1.1051 21.4542 7.1948
Diffusion-DPO 0.2753 5.8918 1.0495 21.8866 7.2758
SPIN-Diffusion 0.2759 6.2481 1.1239 22.0024 7.4126
DPO-C&M 0.2749 6.1397 1.1753 21.8841 7.3685
SIPO 0.2763 6.2451 1.1257 22.0130 7.4150"""
"""Table 2, its average last. The paper prints 7.3683 for DPO-C&M, which is not the mean of that row's four (7.3685)."""
SCORERS = ("pickscore", "imagereward", "aesthetic", "hpsv2")  # not in the table's order


def scores(values, tag="all") -> list[Score]:
    """One picture a prompt, seed 0."""
    return [Score(Sample(f"{i:05d}.png", f"prompt {i}", 0, {"tag": tag}), v, {}) for i, v in enumerate(values)]


def side(name: str, **by_scorer) -> Side:
    return Side(name, Path("/models") / name, {scorer: scores(values) for scorer, values in by_scorer.items()})


def spread_around(mean: float) -> list[float]:
    return [mean - 0.25, mean + 0.25, mean - 0.125, mean + 0.125]


@pytest.fixture(scope="module")
def of_paper():
    """Models whose scores have the means of the paper's Table 2."""
    sides = []
    for line in PAPER.splitlines():
        name, *means = line.split()
        hps, aesthetic, reward, pick, _ = map(spread_around, map(float, means))
        sides.append(side(name, pickscore=pick, imagereward=reward, aesthetic=aesthetic, hpsv2=hps))
    return contest(sides, SCORERS)


def test_the_papers_table_2(of_paper):
    head, rows = means_table(contest_record(of_paper, Path("/"))["table"])
    assert head == ("Model", "HPS", "Aesthetic", "ImageReward", "PickScore", "Average")
    assert [" ".join([name, *(cell.text for cell in cells)]) for name, cells in rows] == PAPER.splitlines()
    best = [[name for name, cells in rows if cells[place].is_best] for place in range(5)]
    assert best == [["SIPO"], ["SPIN-Diffusion"], ["DPO-C&M"], ["SIPO"], ["SIPO"]]  # the paper's bold figures


def test_equal_means_are_both_the_best():
    a, b, c = (side(n, one=values) for n, values in (("a", [1.0, 3.0]), ("b", [2.0, 2.0]), ("c", [0.0, 3.0])))
    _, rows = means_table(contest_record(contest([a, b, c], ["one"]), Path("/"))["table"])
    assert [(name, cells[0].text, cells[0].is_best) for name, cells in rows] == [
        ("a", "2.0000", True),
        ("b", "2.0000", True),
        ("c", "1.5000", False),
    ]


def test_other_scorers_follow_and_there_is_no_average_without_all_four():
    a, b = (side(n, clip=[1.0, 2.0], pickscore=[3.0, 4.0], **{"hpsv2.1": [1.0, 1.0]}) for n in "ab")
    found = contest([a, b], ["clip", "pickscore", "hpsv2.1"]).table
    assert found.titles == ("HPS", "PickScore", "clip")
    assert found.scorers == ("hpsv2.1", "pickscore", "clip")
    assert [row.average for row in found.rows] == [None, None]


def test_two_versions_of_hps_do_not_both_count():
    a, b = (side(n, **{scorer: [0.5, 1.0] for scorer in (*SCORERS, "hpsv2.1")}) for n in "ab")
    found = contest([a, b], [*SCORERS, "hpsv2.1"]).table
    assert found.titles == ("HPS", "Aesthetic", "ImageReward", "PickScore", "hpsv2.1")
    assert found.rows[0].average == pytest.approx(0.75)


def three(seed=0, count=40):
    rng = np.random.default_rng(seed)
    return [
        side(n, one=rng.normal(m, 1, count), two=rng.normal(-m, 2, count))
        for n, m in zip("abc", (0.3, 0, 0.1), strict=True)
    ]


def test_the_first_is_compared_with_each_other_by_each_scorer():
    sides = three()
    found = contest(sides, ["one", "two"])
    order = [(each.names, each.scorer) for each in found.comparisons]
    assert order == [(("a", "b"), "one"), (("a", "b"), "two"), (("a", "c"), "one"), (("a", "c"), "two")]
    for each in found.comparisons:
        a, b = (next(s for s in sides if s.name == name) for name in each.names)
        assert (each,) == contest([a, b], [each.scorer]).comparisons
    p_means = [each.overall.significance.p_mean for each in found.comparisons]
    assert [adjusted[0] for adjusted in found.adjusted()] == holm(p_means)


def test_models_are_compared_on_the_pictures_that_all_have():
    """b misses a score, c two pictures: of six, three are common and scored, whatever pair is looked at."""
    a, b = side("a", one=[1.0, 2, 3, 4, 5, 6]), side("b", one=[0.0, math.nan, 0, 0, 0, 0])
    c = Side("c", Path("/c"), {"one": scores([9.0, 9, 9, 9])})
    found = contest([a, b, c], ["one"])
    assert [each.overall.tally.num_pairs for each in found.comparisons] == [3, 3]
    assert [row.means[0].value for row in found.table.rows] == pytest.approx([(1 + 3 + 4) / 3, 0, 9])
    assert found.table.num_pictures == (3,)
    against_b, against_c = found.comparisons
    assert (against_b.unpaired, len(against_b.unscored), against_b.num_left_out) == ((0, 0), 1, 2)
    assert (against_c.unpaired, len(against_c.unscored), against_c.num_left_out) == ((2, 0), 0, 1)
    record = contest_record(found, Path("/"))["comparisons"][0]
    assert "2 pairs were left out because another model has no score for them." in cautions(record)


def test_nothing_in_common_is_an_error_that_counts():
    a, b = side("a", one=[1.0, 2.0]), side("b", one=[math.nan, math.nan])
    with pytest.raises(
        UserError, match=r"by 'one': 2 samples agree in prompt and seed on all sides \(a 2, b 2\), and none"
    ):
        contest([a, b], ["one"])
    other = Side("c", Path("/c"), {"one": [Score(Sample("x", "another", 0), 1.0, {})]})
    with pytest.raises(UserError, match="0 samples agree"):
        contest([a, other], ["one"])


def test_a_category_that_no_prompt_has_is_an_error():
    with pytest.raises(UserError, match=r"No prompt has the metadata key 'colour'; the prompts have tag\."):
        contest(three(), ["one"], category="colour")


def test_the_csv_has_every_number_and_a_line_for_every_category():
    a, b = three()[:2]
    half = {"one": scores(np.arange(4.0), "x")[:2] + scores(np.arange(4.0), "y")[2:]}
    sides = [Side("a, with a comma", a.folder, half), Side("b", b.folder, {"one": scores([0.0, 3.0, 2.0, 1.0])})]
    record = contest_record(contest(sides, ["one"]), Path("/"))
    rows = list(csv.DictReader(io.StringIO(comparison_csv(record))))
    assert [row["category"] for row in rows] == ["", "x", "y"]
    assert rows[0]["model"] == "a, with a comma"
    counts = [[int(row[key]) for key in ("pairs", "wins", "ties", "losses")] for row in rows]
    assert counts == [[4, 1, 2, 1], [2, 0, 1, 1], [2, 1, 1, 0]]
    assert float(rows[0]["difference"]) == pytest.approx(float(rows[0]["mean_model"]) - float(rows[0]["mean_against"]))
    assert float(rows[0]["p_sign"]) == 1.0
    assert rows[1]["p_mean"] == ""


def test_the_table_as_csv(of_paper):
    rows = list(csv.DictReader(io.StringIO(means_csv(contest_record(of_paper, Path("/"))["table"]))))
    assert [f"{float(row['Average']):.4f}" for row in rows] == [line.split()[-1] for line in PAPER.splitlines()]
    for row in rows:
        assert float(row["HPS low"]) <= float(row["HPS"]) <= float(row["HPS high"])


def test_markdown_is_made_of_tables_with_equal_columns():
    sides = [Side("a | b\nc", s.folder, s.scores) if s.name == "b" else s for s in three()]
    text = comparison_markdown(contest_record(contest(sides, ["one", "two"]), Path("/")))
    blocks = [block.splitlines() for block in text.split("\n\n")]
    tables = [[line for line in block if line.startswith("|")] for block in blocks if any("---" in x for x in block)]
    assert len(tables) == 2 + 4  # means, comparisons, and the categories of each
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "a \\| b c" in text
    assert "Holm's method for 4 comparisons" in text


def test_five_files_and_the_page_shows_all(tmp_path):
    page = write_contest(contest(three(), ["one", "two"]), tmp_path).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.json", "comparison.html", "comparison.md", "comparison.csv", "table.csv"
    }  # fmt: skip
    assert "a against 2 others" in page
    for heading in ("Mean scores", "Against b, by two", "Against c, by one"):
        assert heading in page
    record = read_comparison(tmp_path)
    assert [each["scorer"] for each in record["comparisons"]] == ["one", "two", "one", "two"]
    assert json.dumps(record, allow_nan=False)
