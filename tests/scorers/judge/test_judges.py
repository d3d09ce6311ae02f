"""Judges whose model sees nothing but brightness: what it is sent, and what becomes of its answers."""

from pathlib import Path

import pytest
from PIL import Image
from support.endpoint import Reply, completion, stand_in

from sipo.errors import UsageError, UserError
from sipo.scorers.base import ConfiguredScorer, DetailedScorer, VideoScorer, reads_sources
from sipo.scorers.choice import choose_scorers, load_scorer
from sipo.scorers.judge.judges import agreed, load_pair_judge, load_point_judge, result


def grey(value: int, size=(16, 8)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def rates_brightness(seen):
    return completion(f"Rating: {sum(seen.brightness) / len(seen.brightness):.0f}")


def prefers_the_brighter(seen):
    half = len(seen.pictures) // 2
    first, second = sum(seen.brightness[:half]), sum(seen.brightness[half:])
    word = "tie" if abs(first - second) < 8 else "first" if first > second else "second"
    return completion(f"Because.\nVerdict: {word}")


def test_a_score_is_the_mean_of_the_numbers_and_all_is_kept(tmp_path):
    rated = "Alignment Score (1-5): 2\nCoherence Score (1-5): 3\nStyle Score (1-5): 4.6"
    with stand_in(lambda seen: completion(rated, tokens=(1000, 20))) as server:
        file = server.judge(tmp_path, "unified", template="unifiedreward-2", price={"input": 0.5, "output": 10})
        judge = load_point_judge(file)
        assert (judge.name, isinstance(judge, DetailedScorer), isinstance(judge, VideoScorer)) == (
            "unified",
            True,
            True,
        )
        (found,) = judge.details([grey(9)], ["a dog"])
    assert found == {
        "score": pytest.approx(3.2), "alignment": 2.0, "coherence": 3.0, "style": 4.6, "reasons": [rated],
        "usage": {"requests": 1, "input_tokens": 1000, "output_tokens": 20, "dollars": pytest.approx(0.0007)},
    }  # fmt: skip
    (seen,) = server.seen
    assert [part["type"] for part in seen.content] == ["image_url", "text"]
    assert seen.text.endswith("Text Caption: [a dog]")
    assert (seen.body["temperature"], seen.body["max_tokens"], seen.body["model"]) == (0, 2048, "stand-in")


def test_pictures_arrive_as_they_are_and_large_ones_reduced_and_videos_as_frames(tmp_path):
    with stand_in(rates_brightness) as server:
        judge = load_point_judge(server.judge(tmp_path, max_side=32, num_frames=3, concurrency=1))
        media = [grey(200), grey(40, (100, 50)), [grey(value) for value in (0, 60, 120)]]
        assert judge(media, ["a", "b", "c"]) == pytest.approx([200, 40, 60], abs=1)
    first, large, video = server.seen
    assert (first.pictures[0].size, large.pictures[0].size) == ((16, 8), (32, 16))
    assert video.brightness == pytest.approx([0, 60, 120], abs=2)
    assert "frames in order" in video.text
    assert "frames" not in first.text


def test_an_answer_that_cannot_be_read_costs_one_score_and_its_tokens(tmp_path):
    def answer(seen):
        if seen.brightness[0] > 150:
            return completion("I would rather not say", ended_by="length")
        return Reply({"error": "no"}, 400) if seen.brightness[0] > 100 else rates_brightness(seen)

    with stand_in(answer) as server:
        judge = load_point_judge(server.judge(tmp_path))
        right, unread, refused = judge.details([grey(7), grey(200), grey(120)], ["x"] * 3)
        with pytest.raises(UserError, match="judge: no rating in the answer"):
            judge([grey(200)], ["x"])
    assert right["score"] == pytest.approx(7, abs=1)
    assert unread["error"] == "no rating in the answer 'I would rather not say', which max_tokens cut off"
    assert unread["usage"]["output_tokens"] == 10
    assert refused == {"error": "HTTP 400: no"}


def test_a_template_for_edits_shows_the_source_first(tmp_path):
    """The stand-in rates by the distance from the first picture that it sees, and prefers what is nearer to it."""

    def rates_the_change(seen):
        source, *results = seen.brightness
        return completion(f"Rating: {abs(sum(results) / len(results) - source):.0f}")

    with stand_in(rates_the_change) as server:
        judge = load_point_judge(server.judge(tmp_path, template="edit"))
        assert reads_sources(judge)
        assert not reads_sources(load_point_judge(server.judge(tmp_path, "plain")))
        media = [grey(200), [grey(50), grey(70)]]
        assert judge(media, ["a", "b"], sources=[grey(150), grey(0)]) == pytest.approx([50, 60], abs=2)
    assert [len(seen.pictures) for seen in server.seen] in ([2, 3], [3, 2])
    assert all(seen.text.startswith("The source") for seen in server.seen)

    def prefers_the_nearer(seen):
        source, first, second = seen.brightness
        return completion(f"Verdict: {'first' if abs(first - source) < abs(second - source) else 'second'}")

    with stand_in(prefers_the_nearer) as server:
        judge = load_pair_judge(server.judge(tmp_path, template="edit-pair"))
        pairs, sources = [(grey(200), grey(40)), (grey(200), grey(40))], [grey(30), grey(220)]
        found = judge.verdicts(pairs, ["a", "b"], sources=sources)
    assert [each["verdict"] for each in found] == ["loss", "win"]


def test_verdicts_are_asked_in_both_orders(tmp_path):
    with stand_in(prefers_the_brighter) as server:
        judge = load_pair_judge(server.judge(tmp_path, template="pairwise", concurrency=1))
        pairs = [(grey(200), grey(50)), (grey(50), grey(200)), (grey(90), grey(91))]
        found = judge.verdicts(pairs, ["p", "q", "r"])
    assert [each["verdict"] for each in found] == ["win", "loss", "tie"]
    assert [each["orders"] for each in found] == [["win", "win"], ["loss", "loss"], ["tie", "tie"]]
    assert [round(b / 50) for seen in server.seen[:2] for b in seen.brightness] == [4, 1, 1, 4]
    assert [part["type"] for part in server.seen[0].content] == ["text", "image_url", "text", "image_url", "text"]
    assert found[0]["usage"] == {"requests": 2, "input_tokens": 200, "output_tokens": 20}


def test_who_always_prefers_the_first_makes_ties(tmp_path):
    with stand_in(lambda seen: completion("Verdict: first")) as server:
        judge = load_pair_judge(server.judge(tmp_path, template="pairwise"))
        (found,) = judge.verdicts([(grey(200), grey(50))], ["p"])
    assert (found["verdict"], found["orders"]) == ("tie", ["win", "loss"])


def test_videos_are_compared_by_their_frames(tmp_path):
    with stand_in(prefers_the_brighter) as server:
        judge = load_pair_judge(server.judge(tmp_path, template="pairwise", num_frames=2))
        (found,) = judge.verdicts([([grey(10), grey(90)], [grey(60), grey(80)])], ["p"])
    assert found["verdict"] == "loss"
    assert "Frames of the first video" in server.seen[0].text


@pytest.mark.parametrize(("one", "other", "verdict"), [
    ("win", "win", "win"), ("loss", "loss", "loss"), ("tie", "tie", "tie"), ("win", "loss", "tie"), ("win", "tie", "tie"),
    ("tie", "loss", "tie"),
])  # fmt: skip
def test_two_orders_agree_or_tie(one, other, verdict):
    assert agreed(one, other) == agreed(other, one) == verdict


def test_points_that_cancel_tie():
    shares = {"a": (0.7, 0.3), "b": (0.3, 0.7)}
    assert (result(shares), result({"a": (0.6, 0.4)}), result({"a": (0.6, 0.4)}, -1)) == ("tie", "win", "loss")


def test_scores_depend_on_what_is_asked_and_not_on_where_and_how_fast(tmp_path):
    def settings(**keys):
        with stand_in(rates_brightness) as server:
            judge = load_point_judge(server.judge(tmp_path, **keys))
        assert isinstance(judge, ConfiguredScorer)
        return judge.settings

    base = settings()
    assert settings(concurrency=3, retries=1, price={"input": 1, "output": 1}, timeout=9, key_variable="KEY") == base
    own = {"template": None, "text": "{media} {prompt}", "answers": {"x": "(.)"}}
    for keys in (
        {"model": "other"},
        {"options": {}},
        {"num_frames": 2},
        {"max_side": 99},
        own,
        own | {"video_text": "{media}"},
    ):
        assert settings(**keys) != base, keys
    assert settings(**own) != settings(**own | {"video_text": "{media}"})


def test_a_scorer_is_named_by_its_file(tmp_path):
    with stand_in(rates_brightness) as server:
        point, pair = server.judge(tmp_path, "my judge"), server.judge(tmp_path, "pair", template="pairwise")
        named = server.judge(tmp_path, "other", name="my-judge")
    choice = choose_scorers([point, "clip", pair])
    assert (choice.names, choice.pair_judges) == (("my-judge", "clip"), (pair,))
    assert [choice.is_explicit(name) for name in choice.names] == [True, False]
    assert load_scorer(point).name == choice.load("my-judge").name == "my-judge"
    with pytest.raises(UsageError, match="compares two samples; sipo compare takes it"):
        choice.load_all()
    with pytest.raises(UsageError, match="compares two samples, and gives no scores"):
        load_scorer(pair)
    with pytest.raises(UsageError, match="one name twice"):
        choose_scorers([point, named])
    with pytest.raises(UsageError, match="whose weights lie at its endpoint"):
        choose_scorers([point], [f"{point}=FOLDER"]).load("my-judge")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"url": "localhost:8000"}, "url: expected the address of an endpoint"),
        ({"url": "http://me:secret-51@host/v1"}, "url: expected an address without user, password"),
        ({"url": "http://host/v1?key=secret-51"}, "url: expected an address without user"),
        ({"key_variable": "sk-secret-51"}, "key_variable: expected the name of an environment variable"),
        ({"template": "nonsense"}, "template: 'nonsense' is none of rating, pairwise, unifiedreward-2"),
        ({"text": "{media}"}, "template: give either a template, or a text"),
        ({"template": None}, "template: give either"),
        ({"template": None, "text": "{media}"}, "answers: expected at least one pattern"),
        (
            {"template": None, "text": "{media}", "answers": {"x": "(.)"}, "video_text": "{first}{second}"},
            "video_text: judges",
        ),
        ({"options": {"stream": True}}, "options: stream cannot be chosen"),
        ({"concurency": 3}, "concurency: unknown key; did you mean concurrency"),
        (
            {"price": {"input": -1, "output": 2}},
            r"price.input: found -1; expected at least 0|price.input: .* at least 0",
        ),
        ({"name": "a/b"}, "name: expected letters"),
    ],
)
def test_mistakes_in_a_judges_file(tmp_path, keys, said):
    with stand_in(rates_brightness) as server:
        file = server.judge(tmp_path, **keys)
    with pytest.raises(UsageError, match=said) as caught:
        load_point_judge(file)
    assert str(caught.value).startswith(f"{file} is no judge:")
    assert "secret-51" not in str(caught.value)


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[3] / "configs" / "judges").glob("*.yaml")), ids=lambda f: f.stem
)
def test_the_shipped_judges_can_be_read(file):
    judge = load_pair_judge(str(file))
    assert judge.config.compares == ("pair" in file.stem)
    assert judge.name == file.stem
