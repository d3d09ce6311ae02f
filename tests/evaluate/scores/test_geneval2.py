"""GenEval 2's tables, as `sipo score` prints them, against its analysis written out over all pictures."""

import io
import json
import math
import random
import statistics

import pytest
from PIL import Image
from rich.console import Console
from support.endpoint import completion, stand_in

from sipo.evaluate.scores.geneval2 import soft_tifa
from sipo.evaluate.scores.sources import find_media
from sipo.evaluate.scores.table import print_scores, score_folders
from sipo.jsonl import read_jsonl
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.scorers.choice import choose_scorers

SKILLS = ("object", "attribute", "count", "position", "verb")


@pytest.fixture
def benchmark(tmp_path):
    """(a file in the form of GenEval 2's with 24 made-up prompts, P of the right answer by question)."""
    rng, rows, chance = random.Random(0), [], {}
    for number in range(24):
        asked, skills = [], []
        for place in range(rng.randint(2, 6)):
            skill = rng.choice(SKILLS)
            text = f"How many things {number}-{place}?" if skill == "count" else f"Is thing {number}-{place} there?"
            asked.append([text, rng.choice(["one", "three"]) if skill == "count" else "Yes"])
            skills.append(skill)
            chance[text] = rng.uniform(0.01, 0.99)
        rows.append({"prompt": f"prompt {number}", "atom_count": 3 + number % 4, "vqa_list": asked, "skills": skills})
    file = tmp_path / "geneval2_data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file, rows, chance


def test_the_tables_are_those_of_the_analysis(benchmark, tmp_path):
    file, rows, chance = benchmark
    answers = {text: right for row in rows for text, right in row["vqa_list"]}

    def answer(seen):
        text = seen.text.removesuffix(" Answer in one word.")
        right, found = {answers[text]: chance[text], "Purple": 1 - chance[text]}, completion("x")
        top = [{"token": token, "logprob": math.log(p)} for token, p in right.items()]
        found.body["choices"][0]["logprobs"] = {
            "content": [{**max(top, key=lambda row: row["logprob"]), "top_logprobs": top}]
        }
        return found

    def draw(prompts, seeds):
        return [Image.new("RGB", (8, 8)) for _ in seeds]

    folder = generate(draw, read_prompts(file), tmp_path / "media", {"model": "none"})
    with stand_in(answer) as server:
        scorers = choose_scorers([server.judge(tmp_path, "geneval2", template="geneval2")]).load_all()
        results = score_folders(find_media(folder), scorers, 5, Console(quiet=True))
    console = Console(file=io.StringIO(), width=400)
    print_scores(results, console)
    said = console.file.getvalue()

    lists = [[chance[text] for text, _ in row["vqa_list"]] for row in rows]  # soft_tifa_analysis.py from here
    lines = read_jsonl(folder / "scores.geneval2.jsonl")
    for line, values in zip(lines, lists, strict=True):
        assert line["atoms"] == pytest.approx(values)
        assert (line["score"], line["arithmetic"]) == pytest.approx(
            (statistics.geometric_mean(values), statistics.fmean(values))
        )
    found = soft_tifa(results[0].scores)
    assert found is not None
    assert (found.pictures, found.questions, found.unlisted) == (24, sum(map(len, lists)), 0)
    assert found.arithmetic == pytest.approx(100 * statistics.fmean(map(statistics.fmean, lists)))
    assert found.geometric == pytest.approx(100 * statistics.fmean(map(statistics.geometric_mean, lists)))
    assert found.hard == pytest.approx(
        100 * statistics.fmean(statistics.fmean(p > 0.5 for p in values) for values in lists)
    )
    for skill in SKILLS:
        values = [
            p
            for row, each in zip(rows, lists, strict=True)
            for p, s in zip(each, row["skills"], strict=True)
            if s == skill
        ]
        assert found.by_skill[skill] == (pytest.approx(100 * statistics.fmean(values)), len(values))
        row = f"{skill} arithmetic {len(values)} questions {100 * statistics.fmean(values):.2f}"
        assert row in [" ".join(line.split()) for line in said.splitlines()]
    for atoms in range(3, 7):
        values = [
            statistics.geometric_mean(each) for row, each in zip(rows, lists, strict=True) if row["atom_count"] == atoms
        ]
        assert found.by_atoms[atoms] == (pytest.approx(100 * statistics.fmean(values)), 6)
        assert f"{atoms} atoms" in said
    assert "GenEval 2, " in said
    assert "count as 0" not in said


def test_what_is_not_listed_is_said_and_other_scores_have_no_table(benchmark, tmp_path):
    file, rows, _ = benchmark

    def answer(seen):
        found = completion("Rating: 3")
        found.body["choices"][0]["logprobs"] = {"content": [{"token": "Purple", "logprob": -0.1, "top_logprobs": []}]}
        return found

    folder = generate(
        lambda prompts, seeds: [Image.new("RGB", (8, 8)) for _ in seeds], read_prompts(file, 2), tmp_path / "media", {"model": "none"}
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=250)
    with stand_in(answer) as server:
        files = [server.judge(tmp_path, "geneval2", template="geneval2"), server.judge(tmp_path, "rating")]
        results = score_folders(find_media(folder), choose_scorers(files).load_all(), 2, Console(quiet=True))
        print_scores(results, console)
    number = sum(len(row["vqa_list"]) for row in rows[:2])
    assert (
        f"GenEval 2: {number} of {number} questions count as 0, because no spelling of the answer was among"
        in console.file.getvalue()
    )
    assert console.file.getvalue().count("GenEval 2, ") == 1
    assert soft_tifa(results[1].scores) is None
