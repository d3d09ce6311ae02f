"""The tournament on samples of known quality."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from sipo.annotate.swiss import Look, Prompt, next_pair, pairs_of, strengths_of


def play(quality: np.ndarray, rounds: int, seed: int = 0, error: float = 0.0) -> list[Look]:
    """All looks of a tournament; with probability `error` the worse one is chosen."""
    rng, looks = np.random.default_rng([9, seed]), []
    while pair := next_pair(len(quality), looks, rounds, np.random.default_rng(seed)):
        a, b = pair
        better = (
            "tie"
            if quality[a] == quality[b]
            else "left"
            if (quality[a] > quality[b]) != (rng.random() < error)
            else "right"
        )
        looks.append(Look(a, b, better))
    return looks


def test_eight_samples_take_twelve_looks_and_the_best_is_found():
    for seed in range(20):
        quality = np.random.default_rng(seed).permutation(8)
        looks = play(quality, 3, seed)
        assert len(looks) == 12
        beats = strengths_of(8, looks)
        order = np.argsort(-beats.sum(1))
        assert quality[order[0]] == 7
        assert quality[order[-1]] == 0
        assert kendalltau(beats.sum(1), quality).statistic > 0.6


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8, 9, 12, 16])
def test_nobody_meets_twice_and_rounds_are_even(count):
    rounds = int(np.ceil(np.log2(count)))
    looks = play(np.random.default_rng(count).permutation(count), rounds)
    met = [frozenset((look.left, look.right)) for look in looks]
    assert len(set(met)) == len(met)
    assert len(looks) == rounds * (count // 2)
    seen = np.bincount([n for look in looks for n in (look.left, look.right)], minlength=count)
    assert seen.max() - seen.min() <= (count % 2)


def test_a_tournament_resumes_from_its_looks_alone():
    quality = np.random.default_rng(1).permutation(8)
    whole = play(quality, 3)
    for cut in range(12):
        assert next_pair(8, whole[:cut], 3, np.random.default_rng(0)) == (whole[cut].left, whole[cut].right)
    assert next_pair(8, whole, 3, np.random.default_rng(0)) is None


def test_strengths_are_probabilities_that_grow_with_wins():
    beats = strengths_of(3, [Look(0, 1, "left"), Look(0, 2, "left"), Look(1, 2, "tie")])
    assert np.allclose(beats + beats.T, 1)
    assert beats[0, 1] > 0.5
    assert beats[1, 2] == pytest.approx(0.5, abs=1e-3)


def test_pairs_have_the_better_one_chosen_and_bad_ones_never(tmp_path):
    prompt = Prompt("a cat", tuple(tmp_path / f"{n}.png" for n in range(4)))
    looks = [Look(0, 1, "left"), Look(2, 3, "bad"), Look(0, 2, "right"), Look(1, 3, "tie")]
    lines = pairs_of(prompt, looks, "judged", tmp_path)
    assert [(line["chosen"], line["rejected"]) for line in lines] == [("0.png", "1.png")]  # 2 beat 0, and is bad
    assert all(0.5 <= line["strength"] <= 1 for line in lines)


def test_all_pairs_agree_with_the_ranking(tmp_path):
    prompt = Prompt("a cat", tuple(tmp_path / f"{n}.png" for n in range(6)))
    quality = np.array([3, 1, 5, 0, 2, 4])
    looks = play(quality, 5)
    lines = pairs_of(prompt, looks, "all", tmp_path)
    number = lambda name: quality[int(Path(name).stem)]  # noqa: E731
    assert len(lines) == len(list(combinations(range(6), 2)))
    assert all(number(line["chosen"]) > number(line["rejected"]) for line in lines)
    (one,) = pairs_of(prompt, looks, "best-worst", tmp_path)
    assert (number(one["chosen"]), number(one["rejected"])) == (5, 0)
    assert one["strength"] == max(line["strength"] for line in lines)


def test_pairs_of_generated_samples_keep_their_seeds(tmp_path):
    (tmp_path / "settings.json").write_text('{"model": "tiny"}')
    lines = [{"file": f"{n}.png", "prompt": "a cat", "seed": 40 + n} for n in range(2)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompt = Prompt("a cat", (tmp_path / "0.png", tmp_path / "1.png"))
    (line,) = pairs_of(prompt, [Look(0, 1, "right")], "judged", tmp_path)
    assert (line["chosen_seed"], line["rejected_seed"]) == (41, 40)
    assert line["chosen_sampler"] == line["rejected_sampler"] == {"model": "tiny"}
