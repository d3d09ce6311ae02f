import pytest

from sipo.evaluate.pages.words import (
    cautions,
    comparison_paragraph,
    grouped_warnings,
    number,
    objective_name,
    percent,
    significance_paragraph,
    what_samples_say,
)
from sipo.losses import LOSSES


def test_every_objective_has_a_name_for_readers_and_users_own_keep_theirs():
    assert all(objective_name({"loss": {"name": name}}) not in (name, "Training") for name in LOSSES)
    assert objective_name({"loss": {"name": "mine:Loss"}}) == "mine:Loss"
    assert objective_name({}) == "Training"


def comparison(low, high, **changes):
    value = 0.5 if low is None else (low + high) / 2
    overall = {
        "num_pairs": 200,
        "num_prompts": 200,
        "win_rate": {"value": value, "low": low, "high": high},
        "difference": {"value": 0.1, "low": None, "high": None},
        "details": {},
    }
    whole = {"scorer": "miniature", "names": ["policy", "base"], "overall": overall, "settings": [{}, {}],
             "pairs": [], "unpaired": [0, 0], "unscored": [], "left_out": 0, "scorer_settings": [[], []]}  # fmt: skip
    return whole | changes


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.51, 0.7, "more than chance"),
        (0.3, 0.49, "worse than"),
        (0.45, 0.6, "cannot tell"),
        (None, None, "One prompt"),
    ],
)
def test_the_paragraph_draws_the_right_conclusion(low, high, words):
    others = {"more than chance", "worse than", "cannot tell", "One prompt"} - {words}
    text = comparison_paragraph(comparison(low, high))
    assert words in text
    assert not any(other in text for other in others)


def test_videos_are_called_videos():
    whole = comparison(0.51, 0.7, unpaired=[3, 0])
    whole["overall"]["details"] = {"correct": [0.5, 0.25]}
    for file, word in (("00001.png", "pictures"), ("00001.mp4", "videos")):
        whole["pairs"] = [{"sides": [{"file": file}, {"file": file}]}]
        assert f"50.0% of the {word} by the aligned model right, and 25.0%" in comparison_paragraph(whole)
        assert f"3 {word} by the aligned model had no counterpart" in cautions(whole)[0]


def test_cautions_name_what_was_left_out():
    assert cautions(comparison(0.5, 0.6)) == []
    notes = cautions(
        comparison(0.5, 0.6, unpaired=[0, 3], unscored=[{"file": "00007.png", "error": "truncated"}],
                   settings=[{"weights": "a", "num_inference_steps": 25}, {"weights": "b", "num_inference_steps": 50}])
    )  # fmt: skip
    assert "3 pictures by the base model had no counterpart" in notes[0]
    assert "00007.png (truncated)" in notes[1]
    assert notes[2].endswith("different settings: num_inference_steps.")


def test_scores_with_different_settings_are_named():
    assert cautions(comparison(0.5, 0.6, scorer_settings=[[{"weights": "a"}], [{"weights": "a"}]])) == []
    (note,) = cautions(comparison(0.5, 0.6, scorer_settings=[[{"weights": "a"}], [{"weights": "b"}]]))
    assert "Not all miniature scores were made with the same settings" in note


def test_without_differences_the_words_are_of_votes():
    whole = comparison(0.51, 0.7, scorer="people")
    whole["overall"] |= {"difference": None, "wins": 120, "ties": 0, "losses": 80}
    assert ", by people. The whole interval" in comparison_paragraph(whole)
    text = significance_paragraph([whole, whole])
    assert "p mean" not in text
    assert "Holm's method for 2" in text
    assert "p mean" in significance_paragraph([comparison(0.51, 0.7)])


def test_equal_warnings_are_said_once():
    records = [{"step": s, "message": "Rewards fall."} for s in (10, 20, 1030)] + [{"step": 5, "message": "Slow"}]
    assert grouped_warnings(records) == ["Rewards fall. (3 times, steps 10 to 1,030)", "Slow. (step 5)"]


def test_warnings_that_differ_in_numbers_alone_are_one_and_the_last_stands():
    records = [
        {"step": s, "message": f"Rewards fall (chosen {r}, rejected {-s})."} for s, r in ((10, -0.2), (90, -1e-5))
    ]
    assert grouped_warnings(records) == ["Rewards fall (chosen -1e-05, rejected -90). (2 times, steps 10 to 90)"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.51, 0.7, ["did not get worse"]), (0.3, 0.49, ["got worse"]), (0.45, 0.6, []), (0.5, 0.7, []), (None, None, [])],
)
def test_samples_speak_beside_warnings_where_the_comparison_can_tell(low, high, words):
    said = what_samples_say(comparison(low, high))
    assert len(said) == len(words)
    assert all(each in text for each, text in zip(words, said, strict=True))


def test_numbers_read_well():
    assert [number(v) for v in (1234567, 0.123456, 12345.6, None, 3)] == ["1,234,567", "0.1235", "12,346", "–", "3"]
    assert (percent(0.6312), percent(None), percent(1, 0)) == ("63.1%", "–", "100%")
