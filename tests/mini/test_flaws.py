"""Wrong captions are false of their pictures in the way they should be; degraded pictures are visibly degraded."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sipo.geneval.rules import judge
from sipo.mini import flaws
from sipo.mini.detector import detect
from sipo.mini.flaws import degrade, truth, wrong_attribute, wrong_scene
from sipo.mini.pictures import draw_pictures, draw_scene
from sipo.mini.recipe import MIXTURE, Flaws
from sipo.mini.score import MiniatureScorer
from sipo.mini.wording import all_prompts, parse
from sipo.mini.world import render


def scenes(number, seed=0):
    rng = np.random.default_rng(seed)
    return [(*draw_scene(rng), rng) for _ in range(number)]


def facts(prompt):
    """What a prompt states, as a flat list; two prompts that differ in one attribute differ in one place."""
    return [
        fact
        for clause in prompt["include"]
        for fact in (clause["class"], clause.get("color"), clause["count"], clause.get("position"))
    ]


@pytest.mark.parametrize("make", [wrong_attribute, wrong_scene])
def test_wrong_captions_are_false_of_the_picture_and_in_the_worlds_wording(make):
    for scene, prompt, rng in scenes(300):
        wrong = make(prompt, scene, rng)
        assert wrong["tag"] == prompt["tag"]
        assert parse(wrong["prompt"]) == wrong
        assert not judge(wrong, detect(render(scene, rng))).correct, (prompt["prompt"], wrong["prompt"])


def test_one_attribute_is_changed_and_each_kind_is():
    kinds = set()
    for scene, prompt, rng in scenes(400):
        before, after = facts(prompt), facts(wrong_attribute(prompt, scene, rng))
        (place,) = [k for k in range(len(before)) if before[k] != after[k]]
        kinds.add(("shape", "color", "count", "relation")[place % 4])
    assert kinds == {"shape", "color", "count", "relation"}


def test_another_scene_is_a_prompt_of_the_world():
    known = all_prompts()
    for scene, prompt, rng in scenes(100):
        assert wrong_scene(prompt, scene, rng) in known[prompt["tag"]]


def test_the_truth_is_what_the_detector_finds():
    for scene, prompt, rng in scenes(100):
        found = detect(render(scene, rng))
        assert judge(prompt, truth(scene)).correct
        for shape, things in truth(scene).items():
            assert len(found[shape]) == len(things)
            boxes = np.array([thing.box for thing in found[shape]])
            for thing in things:
                assert np.abs(boxes - np.array(thing.box)).max(axis=1).min() < 1.6


@pytest.mark.parametrize(("kind", "most"), [(0, 0.6), (1, 0.4), (2, 1.0)], ids=["blotches", "blur", "noise"])
def test_each_degradation_is_seen_by_the_score(kind, most):
    """Far less clean than a flawless picture; blotches and blur often hide a shape, but never all of them."""
    cleanliness, right = [], []
    for scene, prompt, rng in scenes(60):
        whole = np.asarray(render(scene, rng))
        poor = np.clip(flaws.DEGRADATIONS[kind](whole.astype(float), rng), 0, 255).astype(np.uint8)
        before, after = MiniatureScorer().details(
            [Image.fromarray(whole), Image.fromarray(poor)], [""] * 2, [prompt] * 2
        )
        cleanliness.append((before["cleanliness"], after["cleanliness"]))
        right.append(after["correct"])
    before, after = np.mean(cleanliness, axis=0)
    assert before > 0.8
    assert after < 0.55
    assert 0.05 < np.mean(right) <= most


def test_degrading_is_seeded_and_leaves_the_picture_given_unchanged():
    scene, _, rng = scenes(1)[0]
    picture = np.asarray(render(scene, rng)).copy()
    before = picture.copy()
    once, again = (degrade(picture, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.dtype == np.uint8
    assert np.array_equal(picture, before)
    assert not np.array_equal(once, before)


def test_the_shares_are_those_asked_for():
    pictures, captions, _ = draw_pictures(600, np.random.default_rng(1), Flaws(0.2, 0.1, 0.4))
    details = MiniatureScorer().details([Image.fromarray(picture) for picture in pictures], captions)
    poor = np.mean([entry["cleanliness"] < 0.68 for entry in details])
    assert poor == pytest.approx(0.4, abs=0.06)
    sharp = [entry["correct"] for entry in details if entry["cleanliness"] >= 0.68]
    assert np.mean(sharp) == pytest.approx(0.7, abs=0.07)


def test_without_flaws_all_is_right():
    pictures, captions, _ = draw_pictures(200, np.random.default_rng(2))
    details = MiniatureScorer().details([Image.fromarray(picture) for picture in pictures], captions)
    assert np.mean([entry["correct"] for entry in details]) > 0.95
    assert np.mean([entry["cleanliness"] > 0.68 for entry in details]) > 0.95


def test_every_category_is_drawn_by_its_share_and_right():
    """Positions with both colours named among them, whose scenes obey them too."""
    drawn = scenes(1500, seed=4)
    tags = Counter(prompt["tag"] for _, prompt, _ in drawn)
    colored = sum("left" in p["prompt"] and "color" in p["include"][0] for _, p, _ in drawn if p["tag"] == "position")
    assert tags["position"] / 1500 == pytest.approx(MIXTURE["position"] + MIXTURE["colored_position"], abs=0.04)
    assert tags["counting"] / 1500 == pytest.approx(MIXTURE["counting"], abs=0.04)
    assert colored > 20
    assert all(judge(prompt, truth(scene)).correct for scene, prompt, _ in drawn)
