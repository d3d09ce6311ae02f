"""Prompts of benchmarks among captions."""

import re

import pytest

from sipo.errors import UsageError
from sipo.profile.leaks import GENEVAL, benchmarks, find_leaks
from sipo.registry import miniature

PROMPTS = [
    "A photo of a bench",
    "a red cube on top of a blue sphere",
    "a red cube on top of a blue sphere, at night",
    "猫",
]


@pytest.mark.parametrize(
    ("caption", "prompt", "whole"),
    [
        ("a photo of a bench", 0, True),
        ("  A  PHOTO of a bench!! ", 0, True),
        ("ａ photo of a bench", 0, True),  # full width
        ("猫", 3, True),
        ("oil painting: a red cube on top of a blue sphere; artstation", 1, False),
        ("a red cube on top of a blue sphere at night, 4k", 2, False),  # the longer one
        ("A photo of a bench, 4k", 0, False),
        ("I saw a photo of a bench, today", None, False),
        ("a photo of a bench and a cow", None, False),
        ("a photo of a benchmark", None, False),
        ("a photo of a red bench", None, False),
        ("photo of a bench", None, False),
        ("a red cube on top of a small blue sphere", None, False),
    ],
)
def test_captions_are_found(caption, prompt, whole):
    found = find_leaks([caption, caption], PROMPTS)
    assert [(leak.prompt, leak.whole) for leak in found] == ([] if prompt is None else [(PROMPTS[prompt], whole)])


def test_a_short_prompt_inside_a_caption_is_no_leak():
    assert not find_leaks(["a cat on a mat"], ["a cat"])


def test_genevals_prompts_ship():
    prompts = benchmarks({})["geneval"]
    assert len(set(prompts)) == 553
    assert all(re.match("a photo of ", prompt) for prompt in prompts)
    assert "MIT License" in GENEVAL.with_name("geneval-LICENSE.txt").read_text()


def test_files_and_the_held_out_prompts_of_a_miniature(tmp_path):
    (tmp_path / "mine.txt").write_text("a cat\n\na dog\n")
    found = benchmarks({"mine": str(tmp_path / "mine.txt")}, "miniature", "else.parquet")
    assert (found["mine"], set(found)) == (["a cat", "a dog"], {"geneval", "miniature", "mine"})
    assert len(found["miniature"]) == len(miniature("miniature").heldout_prompts.read_text().splitlines())
    with pytest.raises(UsageError, match="--benchmark: geneval ships with the package"):
        benchmarks({"geneval": "x.txt"})
