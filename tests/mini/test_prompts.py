"""Wording, categories and splits of the prompts."""

from collections import Counter

import pytest

from sipo.jsonl import read_jsonl
from sipo.mini.prompts import load_prompts, sample_prompts, split_prompts, write_prompts
from sipo.mini.wording import all_prompts, parse
from sipo.samples.metadata import CATEGORIES


def test_each_prompt_parses_back_to_its_metadata():
    for prompts in all_prompts().values():
        for prompt in prompts:
            assert parse(prompt["prompt"]) == prompt


@pytest.mark.parametrize(
    ("text", "include"),
    [  # GenEval's own templates, with this world's nouns
        ("a photo of a star", [{"class": "star", "count": 1}]),
        ("a photo of an orange star", [{"class": "star", "count": 1, "color": "orange"}]),
        ("a photo of three crosses", [{"class": "cross", "count": 3}]),
        ("a photo of a star and a circle", [{"class": "star", "count": 1}, {"class": "circle", "count": 1}]),
        (
            "a photo of a star right of a circle",
            [{"class": "circle", "count": 1}, {"class": "star", "count": 1, "position": ["right of", 0]}],
        ),
        (
            "a photo of a red star and a white circle",
            [{"class": "star", "count": 1, "color": "red"}, {"class": "circle", "count": 1, "color": "white"}],
        ),
    ],
)
def test_wording_is_genevals(text, include):
    assert parse(text)["include"] == include


def test_counting_excludes_one_more():
    assert parse("a photo of two stars")["exclude"] == [{"class": "star", "count": 3}]


@pytest.mark.parametrize("text", ["", "a photo of a dog", "two stars", "a photo of five stars", "a photo of a stars"])
def test_other_text_is_not_of_the_world(text):
    assert parse(text) is None


def test_shipped_splits_are_disjoint_whole_balanced_and_as_the_code_makes_them(tmp_path):
    train, heldout = load_prompts("train"), load_prompts("heldout")
    texts = [{prompt["prompt"] for prompt in split} for split in (train, heldout)]
    assert not texts[0] & texts[1]
    held, trained = split_prompts()[1], split_prompts()[0]
    assert texts[1] <= {prompt["prompt"] for group in held.values() for prompt in group}
    assert texts[0] <= {prompt["prompt"] for group in trained.values() for prompt in group}
    assert len(heldout) >= 240
    for split in (train, heldout):
        assert len(Counter(prompt["tag"] for prompt in split)) == len(CATEGORIES)
        assert len(set(Counter(prompt["tag"] for prompt in split).values())) == 1
    write_prompts(tmp_path)
    for name, split in (("train", train), ("heldout", heldout)):
        assert read_jsonl(tmp_path / f"{name}.jsonl") == split


def test_sampling_is_seeded_balanced_and_keeps_to_its_split():
    drawn = sample_prompts(120, seed=3, split="heldout")
    assert drawn == sample_prompts(120, seed=3, split="heldout")
    assert drawn != sample_prompts(120, seed=4, split="heldout")
    assert [sum(p["tag"] == c for p in drawn) for c in CATEGORIES] == [20] * 6
    held = {prompt["prompt"] for prompt in load_prompts("heldout")}
    assert {prompt["prompt"] for prompt in drawn} <= held


def test_sampling_follows_the_shares():
    drawn = sample_prompts(100, seed=0, shares={"position": 0.75, "colors": 0.25})
    assert sum(p["tag"] == "position" for p in drawn) == 75
    assert sum(p["tag"] == "colors" for p in drawn) == 25


def test_written_lists_are_disjoint_and_balanced_in_every_prefix(tmp_path):
    write_prompts(tmp_path, each_train=50, each_heldout=40)
    texts = {}
    for name, each in (("train", 50), ("heldout", 40)):
        prompts = read_jsonl(tmp_path / f"{name}.jsonl")
        texts[name] = {prompt["prompt"] for prompt in prompts}
        for prefix in (6, 60, 6 * each):
            tags = [prompt["tag"] for prompt in prompts[:prefix]]
            assert {category: tags.count(category) for category in CATEGORIES} == dict.fromkeys(CATEGORIES, prefix // 6)
        for category in CATEGORIES:
            drawn = [prompt["prompt"] for prompt in prompts if prompt["tag"] == category]
            there = {prompt["prompt"] for prompt in split_prompts()[name == "heldout"][category]}
            assert set(drawn) <= there
            counts = [drawn.count(text) for text in there]
            assert max(counts) - min(counts) <= 1  # each once before any twice
    assert not texts["train"] & texts["heldout"]
