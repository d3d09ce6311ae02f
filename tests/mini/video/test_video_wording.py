"""Prompts of the moving world and their metadata."""

import pytest

from sipo.mini.video.wording import CATEGORIES, all_prompts, judged_prompts, parse


def test_each_prompt_is_of_its_category_parses_back_and_occurs_once():
    prompts = [(tag, prompt) for tag, group in all_prompts().items() for prompt in group]
    assert tuple(all_prompts()) == (*CATEGORIES, "two_object")
    assert judged_prompts() == {tag: all_prompts()[tag] for tag in CATEGORIES}
    for tag, prompt in prompts:
        assert prompt["tag"] == tag
        assert parse(prompt["prompt"]) == prompt
    assert len({prompt["prompt"] for _, prompt in prompts}) == len(prompts) == 4 + 32 + 144 + 288 + 192


@pytest.mark.parametrize(
    ("text", "include"),
    [
        ("a video of a square", [{"class": "square", "count": 1}]),
        ("A video of an orange  square.", [{"class": "square", "count": 1, "color": "orange"}]),
        ("a video of a square moving up", [{"class": "square", "count": 1, "motion": "up"}]),
        (
            "a video of a red square moving slowly left",
            [{"class": "square", "count": 1, "color": "red", "motion": "left", "pace": "slowly"}],
        ),
        (
            "a video of a square moving left and a cross moving down",
            [{"class": "square", "count": 1, "motion": "left"}, {"class": "cross", "count": 1, "motion": "down"}],
        ),
    ],
)
def test_what_a_prompt_states(text, include):
    assert parse(text)["include"] == include


@pytest.mark.parametrize(
    "text", ["", "a photo of a square", "a video of a dog", "a video of a star", "a video of a square moving slowly"]
)
def test_other_text_is_not_of_the_world(text):
    assert parse(text) is None
