"""The record of a profile: every number by hand on a few made-up pairs."""

import numpy as np
import pytest

from sipo.data.pairs.rows import Origin
from sipo.profile.page import notices
from sipo.profile.results import (
    Measured,
    agreement_record,
    duplicates_record,
    errors_record,
    leaks_record,
    models_record,
    pairs_record,
    rounded,
    unlike_record,
)
from sipo.profile.unlike import Errors

CHOSEN, REJECTED = np.array([[1.0, 4.0], [2.0, 6.0], [3.0, 8.0]]), np.array([[2.0, 3.0], [1.0, 7.0], [9.0, 9.0]])
COEFFICIENT = np.array([[0.1, 0.01]] * 3)


def measured(own=((1.0, 2.0), (6.0, 2.0)), places=(0, 2), models=(("a", "b"), ("a", "b"), ("c", ""))) -> Measured:
    return Measured(
        [5, 7, 9], ["f:5", "f:7", "f:9"], ["p", "q", "r"], [Origin(True, each) for each in models],
        Errors(CHOSEN, COEFFICIENT), Errors(REJECTED, COEFFICIENT), np.array(own).reshape(-1, 2), list(places),
        [0.0, 500.0, 1000.0], 0.81,
    )  # fmt: skip


def test_means_by_stratum():
    found = errors_record(measured())
    assert (found["chosen"], found["rejected"]) == ([2, 6], [4, pytest.approx(19 / 3)])
    assert found["own"] == [3.5, 2]
    assert found["prefers_chosen"] == [pytest.approx(2 / 3), pytest.approx(2 / 3)]
    assert found["w_chosen"][0] == pytest.approx(np.exp([-0.1, -0.2, -0.3]).mean())
    assert found["pruned"] == [pytest.approx(1 / 3), 0]  # exp(-.2), exp(-.2) and exp(-.9), against .81
    assert "own" not in errors_record(measured((), ()))


def test_distances_compare_a_member_with_the_sample_of_its_own_prompt():
    found = unlike_record(measured())
    chosen = [(np.log(1 / 1) + np.log(4 / 2)) / 2, (np.log(3 / 6) + np.log(8 / 2)) / 2]
    assert found["chosen"]["ratio"]["value"] == pytest.approx(np.exp(np.mean(chosen)))
    assert (found["chosen"]["harder"]["wins"], found["chosen"]["harder"]["num_pairs"]) == (2, 2)
    rejected = [(np.log(2 / 1) + np.log(3 / 2)) / 2, (np.log(9 / 6) + np.log(9 / 2)) / 2]
    assert found["rejected"]["ratio"]["value"] == pytest.approx(np.exp(np.mean(rejected)))
    assert unlike_record(measured((), ())) is None


def test_source_models():
    found = models_record(measured())
    assert {name: each["num_members"] for name, each in found.items()} == {"a": 2, "b": 2, "c": 1}
    assert found["a"]["error"] == [1.5, 5]
    assert found["b"]["error"] == [1.5, 5]
    assert found["b"]["weight"] == pytest.approx(np.exp([-0.2, -0.03, -0.1, -0.07]).mean())
    assert found["a"]["log_ratio"] == pytest.approx([0, np.log(2)])  # of the first pair alone: the second has no sample
    assert found["c"]["distance"]["ratio"]["value"] == pytest.approx(np.sqrt(3 / 6 * 8 / 2))
    assert "distance" not in models_record(measured(places=(2, 2)))["a"]


def test_agreement_of_the_base_and_of_scorers():
    scores = {"mine": np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 1.0]])}
    found = agreement_record(measured(), scores)
    assert [found["the base's own errors"]["balance"][key] for key in ("wins", "ties", "losses")] == [1, 2, 0]
    assert (found["mine"]["balance"]["win_rate"]["value"], found["mine"]["num_unscored"]) == (0.5, 1)
    lines = rounded(pairs_record(measured(), scores))
    assert (lines[2]["scores"]["mine"], lines[0]["error"]) == ([None, 1.0], [2.5, 2.5])
    assert lines[0]["ratio"] == pytest.approx([2**0.5, 3**0.5], rel=1e-5)
    assert "ratio" not in lines[1]


def test_repeats():
    #       pair 0  pair 1  pair 2: twins, 3 repeats 0, 4 is 0 turned round, 5 shares a medium with 1
    groups = np.array([0, 1, 2, 3, 4, 4, 0, 1, 1, 0, 5, 3])
    found = duplicates_record(list("abcdef"), groups, [False, False, False, False, False, True])
    assert (found["num_media"], found["num_distinct"], found["largest"]) == (12, 6, 3)
    assert (found["twins"], found["repeated"], found["contrary"]) == (["c"], [["a", "d"]], [["a", "e"]])
    assert (found["num_held_out"], found["held_out_seen"]) == (1, 1)
    assert duplicates_record(list("abcdef"), groups, [False] * 6)["held_out_seen"] == 0


def test_leaks_are_counted_by_prompt_and_by_pair():
    captions = ["a photo of a dog", "a photo of a dog", "a photo of a cat, 4k", "a bird"]
    found = leaks_record(captions, {"mine": ["A photo of a dog.", "a photo of a cat", "a photo of a cow"]})["mine"]
    assert (found["num_prompts"], found["num_leaked"], found["num_whole"], found["num_pairs"]) == (3, 2, 1, 3)
    assert [leak["caption"] for leak in found["captions"]] == ["a photo of a dog", "a photo of a cat, 4k"]


def test_what_stands_out_is_said_and_nothing_else():
    balanced = {"num_pairs": 40, "win_rate": {"value": 0.5, "low": 0.4, "high": 0.6}, "p": 0.9}
    none = {"twins": [], "repeated": [], "contrary": [], "num_held_out": 4, "held_out_seen": 0}
    quiet = {
        "unlike": {"chosen": {"harder": balanced}}, "leaks": {"geneval": {"num_pairs": 0}}, "duplicates": none,
        "labels": {"position": balanced, "told_by_models": {"share": 0.6, "num_pairs": 40}},
        "agreement": {"mine": {"balance": balanced, "num_unscored": 0}}, "num_measured": 40,
    }  # fmt: skip
    assert notices(quiet) == []
    high, low = (
        {"win_rate": {"value": v, "low": v - 0.05, "high": v + 0.05}, "p": 1e-6, "num_pairs": 40} for v in (0.9, 0.1)
    )
    loud = {
        "unlike": {"chosen": {"harder": high}}, "duplicates": {**none, "twins": ["a"], "contrary": [["a", "b"]], "held_out_seen": 2},
        "leaks": {"geneval": {"num_pairs": 3, "num_leaked": 2, "num_prompts": 553}},
        "labels": {"position": low, "told_by_models": {"share": 0.8, "num_pairs": 40}},
        "agreement": {"mine": {"balance": low, "num_unscored": 7}}, "num_measured": 40,
    }  # fmt: skip
    starts = ("Unlike data: 90.0%", "2 of the 553 prompts of geneval", "The labels depend on the position", "The source models alone",
              "By mine most labels are wrong", "7 of the 40 measured pairs have no score by mine", "1 pairs have members that look alike", "1 pairs repeat", "2 of 4 held-out")  # fmt: skip
    assert [text.startswith(start) for text, start in zip(notices(loud), starts, strict=True)] == [True] * 9
