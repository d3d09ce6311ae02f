"""What is asked and how answers are read: examples as models write them."""

import pytest

from sipo.errors import UsageError
from sipo.scorers.judge.templates import TEMPLATES, Template, Unreadable, load_templates

RATED = """Alignment Score (1-5): 2.694700002670288
Coherence Score (1-5): 2.5
Style Score (1-5): 3
"""
SHARED = """Alignment Score:
 Image 1: 0.4357
 Image 2: 0.5643

Coherence Score:
 Image 1: 0.9
 Image 2: 0.1

Style Score:
 Image 1: 0.5
 Image 2: 0.5
"""


def test_unifiedreward_rates_pictures_and_videos_by_three_names_each():
    templates = load_templates("unifiedreward-2")
    assert templates.picture.numbers(RATED) == {"alignment": 2.694700002670288, "coherence": 2.5, "style": 3.0}
    assert list(templates.video.numbers(RATED.replace("Coherence", "Physics"))) == ["alignment", "physics", "style"]
    with pytest.raises(Unreadable, match="no physics in the answer"):
        templates.video.numbers(RATED)


def test_unifiedreward_shares_each_point_between_two():
    templates = load_templates("unifiedreward-2-pair")
    expected = {"alignment": (0.4357, 0.5643), "coherence": (0.9, 0.1), "style": (0.5, 0.5)}
    assert templates.picture.shares(SHARED) == expected
    assert templates.video.shares(SHARED.replace("Image", "Video")) == expected


def test_the_generic_ones_read_the_last_line_of_a_model_that_thinks_aloud():
    pair, rating = load_templates("pairwise").picture, load_templates("rating").picture
    assert pair.shares("<think>Verdict: first? No.</think>\n**Verdict:** Second.") == {"verdict": (0.0, 1.0)}
    assert pair.shares("verdict: TIE") == {"verdict": (0.5, 0.5)}
    assert rating.numbers("Rating: 3, or rather\nRating: **7.5**/10") == {"rating": 7.5}
    for answer in ("", "Verdict: both", "I cannot help with that."):
        with pytest.raises(Unreadable, match="no verdict in the answer"):
            pair.shares(answer)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_shows_what_it_judges_and_the_prompt_as_it_is(name):
    for template in (load_templates(name).picture, load_templates(name).video):
        parts = template.parts("a {first} {media} {prompt} thing")
        assert "a {first} {media} {prompt} thing" in "".join(parts[::2])
        judged = ["first", "second"] if template.is_pair else ["media"]
        assert parts[1::2] == (["source", *judged] if name.startswith("edit") else judged)
        said = "".join(parts[::2]).lower()
        assert all(word in said for word in template.answers if word != "verdict")


def test_what_a_template_says_of_its_form_can_be_read_again():
    """The example at the end of each generic text is one that its own pattern reads."""
    numbers, shares = Template.numbers, Template.shares
    for name, read in (("rating", numbers), ("pairwise", shares), ("edit", numbers), ("edit-pair", shares)):
        for template in (load_templates(name).picture, load_templates(name).video):
            assert read(template, template.text)


@pytest.mark.parametrize(
    ("text", "answers", "said"),
    [
        ("no mark {prompt}", {"a": "(.)"}, "text: expected {media} once, .* found none"),
        ("{media}{media}", {"a": "(.)"}, "text: expected"),
        ("{media}{first}{second}", {"a": "(.)"}, "text: expected"),
        ("{media}", {}, "answers: expected at least one"),
        ("{media}", {"a": "("}, r"answers.a: .* is no regular expression"),
        ("{media}", {"a": "x"}, r"answers.a: .* has 0 groups; expected one group, the number"),
        ("{first}{second}", {"a": "(.)(.)(.)"}, "has 3 groups; expected one group, the verdict, or two"),
    ],
)
def test_templates_that_cannot_work(text, answers, said):
    with pytest.raises(UsageError, match=said):
        Template(text, answers)


def test_words_and_numbers_of_ones_own_patterns():
    own = Template("{first} or {second}? {prompt}", {"better": r"<(\w+)>", "points": r"(\S+) to (\S+)"})
    assert own.shares("3 to .5 <B>") == {"better": (0.0, 1.0), "points": (3.0, 0.5)}
    for answer, said in (("3 to 4 <C>", "found 'c', expected first"), ("x to 4 <A>", "found 'x', expected a number"),
                         ("nan to 4 <A>", "expected a finite number")):  # fmt: skip
        with pytest.raises(Unreadable, match=said):
            own.shares(answer)
