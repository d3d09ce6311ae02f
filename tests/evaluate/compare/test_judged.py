"""Models compared by a judge of pairs: matches, ties, what is kept, and pages; the judge prefers the brighter sample."""

import json
import math

import pytest
from PIL import Image
from rich.console import Console
from support.endpoint import Reply, completion, stand_in
from support.processes import Kill, in_one, in_two

from sipo.errors import UsageError, UserError
from sipo.evaluate.compare.files import read_comparison
from sipo.evaluate.compare.judged import Model, judge_pairs
from sipo.evaluate.compare.run import CompareRequest, PromptChoice, compare_models
from sipo.jsonl import read_jsonl
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.scorers.choice import choose_scorers
from sipo.scorers.judge.judges import load_pair_judge

QUIET = Console(quiet=True)
PROMPTS = [PromptItem(f"prompt {i}", i, {"tag": "even" if i % 2 == 0 else "odd"}) for i in range(6)]
BIASED = {3: "first", 4: "none of them"}  # answers on these prompts, whatever is shown


def folder(path, values):
    """A picture of each grey value, prompt by prompt."""

    def draw(prompts, seeds):
        return [Image.new("RGB", (8, 8), (values[seed],) * 3) for seed in seeds]

    return generate(draw, [PROMPTS[i] for i in range(len(values))], path, {"model": path.name})


def answer(seen):
    number = int(seen.text.partition("prompt ")[2].split()[0])
    first, second = seen.brightness
    word = BIASED.get(number) or ("first" if first > second else "second")
    return completion(f"Look.\nVerdict: {word}", tokens=(10, 2))


@pytest.fixture
def folders(tmp_path):
    return folder(tmp_path / "a", [200, 200, 50, 200, 200, 200]), folder(tmp_path / "b", [90, 90, 90, 90, 90])


def judged(file, a, b, out, processes=None, **options):
    options |= {"processes": processes} if processes else {}
    return judge_pairs(load_pair_judge(file), Model("a", a), Model("b", b), out, batch_size=2, **options)


def test_edits_are_compared_by_their_source(tmp_path):
    """The judge sees the source first and prefers what is nearer to it; edits of other pictures are refused."""

    def edits(name, values, sources):
        path = folder(tmp_path / name, values)
        lines = [
            {**line, "source": str(tmp_path / source)}
            for line, source in zip(read_jsonl(path / "samples.jsonl"), sources, strict=True)
        ]
        (path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    for name, value in (("dark", 0), ("light", 255)):
        Image.new("RGB", (8, 8), (value,) * 3).save(tmp_path / f"{name}.png")

    def nearer(seen):
        source, first, second = seen.brightness
        return completion(f"Verdict: {'first' if abs(first - source) < abs(second - source) else 'second'}")

    a = edits("a", [200, 200, 200], ["light.png", "dark.png", "light.png"])
    b = edits("b", [90, 90, 90], ["light.png", "dark.png", "light.png"])
    with stand_in(nearer) as server:
        judge = server.judge(tmp_path, "edits", template="edit-pair")
        found = judged(judge, a, b, tmp_path / "out")
        assert [match.verdict.result for match in found.matches] == ["win", "loss", "win"]
        asked = len(server.seen)
        judged(judge, a, b, tmp_path / "out")
        assert len(server.seen) == asked  # all are kept
        Image.new("RGB", (8, 8), (1, 1, 1)).save(tmp_path / "light.png")
        found = judged(judge, a, b, tmp_path / "out")
        assert [match.verdict.result for match in found.matches] == ["loss", "loss", "loss"]
        assert len(server.seen) == asked + 4  # both orders of the two whose source has changed
        other = edits("c", [90, 90, 90], ["light.png", "light.png", "dark.png"])
        with pytest.raises(UserError, match=r"made 1 of 3 pairs of different sources, first 'prompt 2', seed 2"):
            judged(judge, b, edits("d", [90] * 3, ["light.png", "dark.png", "dark.png"]), tmp_path / "out")
        with pytest.raises(UserError, match="3 of 3 samples record no source"):
            judged(judge, other, folder(tmp_path / "e", [90, 90, 90]), tmp_path / "out")


def test_verdicts_become_a_comparison(folders, tmp_path):
    with stand_in(answer) as server:
        found = judged(server.judge(tmp_path, "pair", template="pairwise"), *folders, tmp_path / "out")
    assert {match.verdict.prompt: match.verdict.result for match in found.matches} == {
        "prompt 0": "win", "prompt 1": "win", "prompt 2": "loss", "prompt 3": "tie",
    }  # fmt: skip
    assert (found.overall.tally.wins, found.overall.tally.ties, found.overall.tally.losses) == (2, 1, 1)
    assert {tag: outcome.tally.wins for tag, outcome in found.categories.items()} == {"even": 1, "odd": 1}
    assert found.unpaired == (1, 0)
    (lost,) = found.unscored
    assert (lost.sample.prompt, math.isnan(lost.value)) == ("prompt 4", True)
    assert "no verdict in the answer" in lost.error
    # Of 4 verdicts 3 agree; all 8 answers prefer one, of each agreed pair one of two the first, of the biased pair both.
    assert found.judged == {
        "agreed": 3, "decisive": 8, "shown_first": 5,
        "usage": {"requests": 10, "input_tokens": 100, "output_tokens": 20},
    }  # fmt: skip


def test_only_what_is_new_or_failed_is_asked_again(folders, tmp_path):
    with stand_in(answer) as server:
        file = server.judge(tmp_path, "pair", template="pairwise")
        first = judged(file, *folders, tmp_path / "out")
        asked = len(server.seen)
        assert judged(file, *folders, tmp_path / "out") == first
        assert [int("prompt 4" in seen.text) for seen in server.seen[asked:]] == [1, 1]
        Image.new("RGB", (8, 8), "white").save(folders[1] / "00001.png")
        asked = len(server.seen)
        changed = judged(file, *folders, tmp_path / "out")
        assert sorted({seen.text.partition("prompt ")[2][0] for seen in server.seen[asked:]}) == ["1", "4"]
        assert changed.matches[1].verdict.result == "loss"
        asked = len(server.seen)
        judged(server.judge(tmp_path, "pair", template="pairwise", model="newer"), *folders, tmp_path / "out")
        assert len(server.seen) == asked + 10


def test_a_file_that_cannot_be_read_and_no_verdict_at_all(folders, tmp_path):
    (folders[0] / "00000.png").write_bytes(b"no picture")
    with stand_in(answer) as server:
        file = server.judge(tmp_path, "pair", template="pairwise")
        found = judged(file, *folders, tmp_path / "out")
        assert [score.sample.file for score in found.unscored] == ["00000.png", "00004.png"]
    with (
        stand_in(lambda seen: completion("hm")) as server,
        pytest.raises(UserError, match="pair: there is no verdict on any of 5 pairs; the first"),
    ):
        judged(server.judge(tmp_path, "pair", template="pairwise", model="mute"), *folders, tmp_path / "out")
    others = folder(tmp_path / "c", [1])
    (others / "samples.jsonl").write_text(json.dumps({"file": "00000.png", "prompt": "else", "seed": 0}) + "\n")
    with pytest.raises(UserError, match="no sample of the same prompt and seed"):
        judged(file, folders[0], others, tmp_path / "out")


def work(processes, file, a, b, out):
    return judged(file, a, b, out, processes).judged


def test_two_processes_share_the_pairs_and_go_on_after_a_kill(folders, tmp_path):
    with stand_in(answer) as server:
        file = server.judge(tmp_path, "pair", template="pairwise")
        (expected,) = in_one(work, file, *folders, tmp_path / "one")
        asked = len(server.seen)
        in_two(work, file, *folders, tmp_path / "two", kill=Kill(0, 2, ".part"))
        assert in_two(work, file, *folders, tmp_path / "two") == [expected, expected]
        assert len(server.seen) - asked <= 2 * asked
    name = "verdicts.pair.b.jsonl"
    assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def compare(models, scorers, out):
    request = CompareRequest(models, PromptChoice("miniature", 1, 1, 0), choose_scorers(scorers), out)
    return compare_models(request, QUIET)


def test_the_command_lists_judges_beside_scorers_and_the_page_shows_their_words(folders, tmp_path):
    with stand_in(answer) as server:
        price = {"input": 100, "output": 0}
        files = [server.judge(tmp_path, "pair", template="pairwise", price=price), "support.scorers:Brightness"]
        said = compare([*folders, folders[0]], files, tmp_path / "out")
        alone = compare(folders, files[:1], tmp_path / "alone")
    assert "a wins 62.5% against b by pair" in said
    assert "gave one verdict for 75.0% of them; the others count as ties" in said
    assert "Of its answers that prefer one sample 62.5% prefer the first shown." in said
    assert "pair: 10 answers, 100 tokens in, 20 out, 0.01 US dollars." in said
    assert "a wins 62.5% against b by pair" in alone
    records = read_comparison(tmp_path / "out")["comparisons"]
    assert [(each["names"][1], each["scorer"]) for each in records] == [
        ("b", "brightness"), ("a-2", "brightness"), ("b", "pair"), ("a-2", "pair"),
    ]  # fmt: skip
    assert records[2]["overall"]["difference"] is None
    page = (tmp_path / "alone" / "comparison.html").read_text()
    assert "shown first: Look." in page
    assert not (tmp_path / "alone" / "table.csv").exists()
    assert len(read_jsonl(tmp_path / "alone" / "verdicts.pair.b.jsonl")) == 5


def test_a_judge_of_pairs_and_a_file_of_scores(folders, tmp_path):
    scores = tmp_path / "scores.jsonl"
    scores.write_text('{"prompt": "prompt 0", "score": 1}\n')
    with stand_in(lambda seen: Reply("", 500)) as server:
        file = server.judge(tmp_path, "pair", template="pairwise")
        with pytest.raises(UsageError, match=r"holds scores, and .* judges media: name the folder"):
            compare([folders[0], scores], [file], tmp_path / "out")
