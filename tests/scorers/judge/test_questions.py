"""GenEval 2 by questions over an endpoint: what is asked, and Soft-TIFA against the repository's formulas written out."""

import math
import statistics

import pytest
from PIL import Image
from support.endpoint import Reply, Seen, StandIn, completion, stand_in

from sipo.errors import UsageError, UserError
from sipo.scorers.base import DetailedScorer
from sipo.scorers.choice import load_scorer
from sipo.scorers.judge.questions import Question, geometric_mean, questions_of

CATS = {  # a line in the form of GenEval 2's file
    "atom_count": 4,
    "vqa_list": [["How many cats are in the image?", "two"], ["Are the cats blue?", "Yes"], ["Are there any cats in the image?", "Yes"],
                 ["Are the cats under the table?", "Yes"]],
    "skills": ["count", "attribute", "object", "position"],
}  # fmt: skip
SAID = {  # a distribution over first tokens for each question
    "How many cats are in the image?": {"Two": 0.5, "two": 0.125, "2": 0.0625, "Three": 0.25, " two": 0.03125},
    "Are the cats blue?": {"No": 0.75, "Yes": 0.125, "yes": 0.0625, "YES": 0.03125},
    "Are there any cats in the image?": {"Yes": 0.875, " Yes": 0.0625, "No": 0.03125},
    "Are the cats under the table?": {"No": 0.5, " yes": 0.25, "Below": 0.125},
}
GREY = Image.new("RGB", (16, 8), (90, 90, 90))


def with_probabilities(said: dict[str, float], chosen: str | None = None) -> Reply:
    """A completion with the alternatives of its one token, as vLLM sends them."""
    chosen = chosen or max(said, key=said.__getitem__)
    rows = [{"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in said.items()]
    reply = completion(chosen, "length", (300, 1))
    place = {"token": chosen, "logprob": math.log(said[chosen]), "bytes": None, "top_logprobs": rows}
    reply.body["choices"][0]["logprobs"] = {"content": [place]}
    return reply


def answer(seen: Seen) -> Reply:
    return with_probabilities(SAID[seen.text.removesuffix(" Answer in one word.")])


def judge(server: StandIn, folder, **keys):
    return load_scorer(server.judge(folder, "geneval2", template="geneval2", **keys))


def official(vqa_list: list[list[str]]) -> list[float]:
    """evaluation.py's soft_tifa with a tokenizer of whole words, whose " 2" begins with a lone space."""
    numbers = {"one": "1", "two": "2", "three": "3"}
    scores = []
    for question, right in vqa_list:
        if question.startswith("How many"):
            digit = numbers[right]
            wanted = [right, right.capitalize(), " " + right, " " + right.capitalize(), digit, " "]
        else:
            wanted = ["Yes", "yes", " yes", " Yes"]
        scores.append(sum(SAID[question].get(token, 0) for token in wanted))
    return scores


def test_soft_tifa_is_the_repositorys(tmp_path):
    with stand_in(answer) as server:
        scorer = judge(server, tmp_path, price={"input": 1, "output": 0})
        assert isinstance(scorer, DetailedScorer)
        assert scorer.name == "geneval2"
        (found,) = scorer.details([GREY], ["two blue cats under a table"], [CATS])
        assert scorer([GREY], ["two blue cats under a table"], [CATS]) == [found["score"]]
    expected = official(CATS["vqa_list"])
    assert expected == [0.71875, 0.1875, 0.9375, 0.25]
    assert found["atoms"] == pytest.approx(expected, abs=1e-12)
    assert found["arithmetic"] == pytest.approx(statistics.fmean(expected))
    assert found["score"] == pytest.approx(statistics.geometric_mean(expected))
    assert found["tifa"] == 0.5  # the likeliest tokens: Two, No, Yes, No
    assert found["unlisted"] == 0
    assert found["reasons"][1] == "Are the cats blue? No (P(Yes) = 0.1875)"
    assert found["usage"] == {"requests": 4, "input_tokens": 1200, "output_tokens": 4, "dollars": pytest.approx(0.0012)}


def test_each_question_is_asked_of_the_picture_for_one_token_and_its_alternatives(tmp_path):
    with stand_in(answer) as server:
        scorer = judge(server, tmp_path, concurrency=1)
        scorer.details(
            [GREY, GREY.resize((32, 32))],
            ["a", "b"],
            [CATS, CATS | {"vqa_list": CATS["vqa_list"][:1], "skills": ["count"]}],
        )
    assert [seen.text for seen in server.seen] == [
        f"{q} Answer in one word." for q, _ in [*CATS["vqa_list"], CATS["vqa_list"][0]]
    ]
    assert [seen.pictures[0].size for seen in server.seen] == [(16, 8)] * 4 + [(32, 32)]
    for seen in server.seen:
        assert [part["type"] for part in seen.content] == ["image_url", "text"]
        options = {key: value for key, value in seen.body.items() if key not in ("model", "messages")}
        assert options == {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}


def test_options_are_added_to_its_own_and_null_takes_one_away(tmp_path):
    with stand_in(answer) as server:
        scorer = judge(
            server, tmp_path, options={"max_tokens": None, "max_completion_tokens": 1, "top_logprobs": 5, "seed": 3}
        )
        scorer.details([GREY], ["a"], [CATS])
        with pytest.raises(UsageError, match="options: model cannot be chosen"):
            judge(server, tmp_path, options={"model": "x"})
    options = {key: value for key, value in server.seen[0].body.items() if key not in ("model", "messages")}
    assert options == {"temperature": 0, "max_completion_tokens": 1, "logprobs": True, "top_logprobs": 5, "seed": 3}
    assert scorer.settings["options"] == options


def test_an_answer_that_is_not_listed_counts_as_0_and_is_counted(tmp_path):
    with stand_in(lambda seen: with_probabilities({"Seven": 0.9, "No": 0.1})) as server:
        (found,) = judge(server, tmp_path).details([GREY], ["a"], [CATS])
    assert (found["score"], found["arithmetic"], found["tifa"], found["unlisted"]) == (0, 0, 0, 4)


def test_the_chosen_token_counts_though_the_alternatives_lack_it(tmp_path):
    def reply(_):
        found = with_probabilities({"Yes": 0.25, "No": 0.5}, "Yes")
        found.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"].pop(0)
        return found

    asked = {"vqa_list": [["Is it red?", "Yes"]], "skills": ["attribute"], "atom_count": 3}
    with stand_in(reply) as server:
        (found,) = judge(server, tmp_path).details([GREY], ["a"], [asked])
    assert found["atoms"] == pytest.approx([0.25])


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": []}, {"content": [{"token": "Yes"}]}, {"content": [{"token": 3, "logprob": -1, "top_logprobs": []}]},
     {"content": [{"token": "Yes", "logprob": None, "top_logprobs": [{"token": "Yes", "logprob": True}]}]}, "none", [1]],
)  # fmt: skip
def test_an_endpoint_without_probabilities_is_no_judge_of_it(tmp_path, logprobs):
    def reply(_):
        found = completion("Yes")
        found.body["choices"][0]["logprobs"] = logprobs
        return found

    with stand_in(reply) as server:
        scorer = judge(server, tmp_path)
        (found,) = scorer.details([GREY], ["a"], [CATS])
        assert "no log-probabilities of an answer's first token" in found["error"]
        assert found["usage"]["requests"] == 4
        with pytest.raises(UserError, match="geneval2: the endpoint gives no log-probabilities"):
            scorer([GREY], ["a"], [CATS])


def test_a_refused_question_costs_its_picture_alone(tmp_path):
    def reply(seen):
        return (
            Reply({"error": "too many tokens"}, 400)
            if "blue" in seen.text and seen.pictures[0].size == (16, 8)
            else answer(seen)
        )

    with stand_in(reply) as server:
        lost, good = judge(server, tmp_path).details([GREY, GREY.resize((8, 8))], ["a", "a"], [CATS, CATS])
    assert lost["error"] == "Are the cats blue? HTTP 400: too many tokens"
    assert lost["usage"]["requests"] == 3
    assert good["atoms"] == pytest.approx(official(CATS["vqa_list"]))


def test_pictures_without_questions_and_videos_are_named_and_nothing_is_asked(tmp_path):
    with stand_in(answer) as server:
        scorer = judge(server, tmp_path)
        found = scorer.details([GREY, [GREY, GREY]], ["a", "a"], [{"tag": "colors"}, CATS])
        assert (
            "its metadata hold no questions (vqa_list): its prompt should come from GenEval 2's geneval2_data.jsonl"
            in found[0]["error"]
        )
        assert found[1] == {"error": "a video; GenEval 2 asks about pictures"}
        assert "no questions" in scorer.details([GREY], ["a"])[0]["error"]
    assert not server.seen


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"vqa_list": []}, "no questions"),
        ({"vqa_list": "How many?"}, "no questions"),
        ({"vqa_list": [["Is it red?"]] * 4}, r"vqa_list holds \['Is it red\?'\]; expected a question and its answer"),
        ({"vqa_list": [["Is it red?", True]] * 4}, "expected a question and its answer"),
        ({"vqa_list": [["How many cats?", "2"]] * 4}, "the answer to 'How many cats\\?' is '2'; expected one to nine"),
        ({"skills": ["count"]}, r"skills is \['count'\]; expected one of object, .* for each of 4 questions"),
        ({"skills": ["count", "colour", "object", "verb"]}, "skills is"),
        ({"skills": [[], {}, 1, None]}, "skills is"),
        ({"atom_count": "4"}, "atom_count is '4'"),
        ({"atom_count": True}, "atom_count is True"),
    ],
)
def test_lines_of_another_form_are_named(changed, said):
    with pytest.raises(UserError, match=said):
        questions_of(CATS | changed)


def test_spellings_and_means():
    assert Question("How many cats?", "two").spellings() == {"two", "Two", "2", " two", " Two", " 2"}
    assert Question("Are there cats?", "Yes").spellings() == {"yes", "Yes", " yes", " Yes"}
    assert Question("Are there cats?", "Yes").probability({"Yes": 0.75, "yes": 0.25 + 1e-9}) == 1.0
    assert geometric_mean([0.5, 0.0]) == 0.0
    assert geometric_mean([1e-300] * 9) == pytest.approx(1e-300)
