import pytest

from sipo.evaluate.pages.words import cautions, comparison_paragraph, grouped_warnings, number, percent


def comparison(low, high, **changes):
    value = 0.5 if low is None else (low + high) / 2
    overall = {
        "num_pairs": 200,
        "num_prompts": 200,
        "win_rate": {"value": value, "low": low, "high": high},
        "details": {},
    }
    whole = {"scorer": "miniature", "names": ["policy", "base"], "overall": overall, "settings": [{}, {}],
             "unpaired": [0, 0], "unscored": []}  # fmt: skip
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


def test_cautions_name_what_was_left_out():
    assert cautions(comparison(0.5, 0.6)) == []
    notes = cautions(
        comparison(0.5, 0.6, unpaired=[0, 3], unscored=[{"file": "00007.png", "error": "truncated"}],
                   settings=[{"weights": "a", "num_inference_steps": 25}, {"weights": "b", "num_inference_steps": 50}])
    )  # fmt: skip
    assert "3 pictures by the base model had no partner" in notes[0]
    assert "00007.png (truncated)" in notes[1]
    assert notes[2].endswith("different settings: num_inference_steps.")


def test_equal_warnings_are_said_once():
    records = [{"step": s, "message": "Rewards fall."} for s in (10, 20, 1030)] + [{"step": 5, "message": "Slow"}]
    assert grouped_warnings(records) == ["Rewards fall. (3 times, steps 10 to 1,030)", "Slow. (step 5)"]


def test_numbers_read_well():
    assert [number(v) for v in (1234567, 0.123456, 12345.6, None, 3)] == ["1,234,567", "0.1235", "12,346", "–", "3"]
    assert (percent(0.6312), percent(None), percent(1, 0)) == ("63.1%", "–", "100%")
