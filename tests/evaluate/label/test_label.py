"""Scores in, pairs out: by hand on small sets, and counts that must add up on random ones."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from sipo.evaluate.label.label import Candidate, label, preferences
from sipo.evaluate.scores.files import Score
from sipo.evaluate.statistics.verdicts import Verdict
from sipo.samples.folder import Sample


def candidates(scores, **details) -> list[Candidate]:
    """{"prompt": [scores]} -> samples named after prompt and place; `details` by name, in the order of all scores."""
    flat = [(prompt, i, value) for prompt, values in scores.items() for i, value in enumerate(values)]
    return [
        Candidate(
            Path(f"{prompt}{i}.png"),
            Score(Sample(f"{prompt}{i}.png", prompt, i), value, {key: values[n] for key, values in details.items()}),
        )
        for n, (prompt, i, value) in enumerate(flat)
    ]


def names(labels) -> list[tuple[str, str]]:
    return [(pair.chosen.path.stem, pair.rejected.path.stem) for pair in labels.preferences.pairs]


def test_best_against_worst():
    found = label(candidates({"x": [0.2, 0.9, 0.5], "y": [3.0, -1.0]}))
    assert names(found) == [("x1", "x0"), ("y0", "y1")]
    assert [pair.gap for pair in found.preferences.pairs] == pytest.approx([0.7, 4.0])
    assert [pair.prompt for pair in found.preferences.pairs] == ["x", "y"]
    assert [best.path.stem for best in found.best] == ["x1", "y0"]


def test_all_pairs_above_a_margin():
    """Of 0, 1, 3, 3.5 the gaps are 1, 3, 3.5, 2, 2.5, 0.5: four are at least 2."""
    found = label(candidates({"x": [0.0, 1.0, 3.0, 3.5]}), "all", margin=2.0)
    assert sorted(names(found)) == [("x2", "x0"), ("x2", "x1"), ("x3", "x0"), ("x3", "x1")]
    assert found.preferences.num_ties == 2


def test_equal_scores_are_ties_without_a_margin_too():
    found = label(candidates({"x": [1.0, 1.0], "y": [1.0, 2.0, 2.0]}), "all")
    assert sorted(names(found)) == [("y1", "y0"), ("y2", "y0")]
    assert found.preferences.num_ties == 2


@pytest.mark.parametrize("mode", ["best-worst", "all"])
def test_the_counts_add_up(mode):
    """Every comparison becomes a pair, a tie or a wrong one; every pair's chosen one scores higher by the margin."""
    rng = np.random.default_rng(0)
    scores = {str(i): rng.integers(0, 6, rng.integers(1, 6)).astype(float).tolist() for i in range(60)}
    given = candidates(scores, correct=(rng.random(sum(map(len, scores.values()))) < 0.6).tolist())
    for margin, only_right in itertools.product((0.0, 2.0), (False, True)):
        found = label(given, mode, margin, only_right)
        sizes = [len(values) for values in scores.values()]
        comparisons = sum(n > 1 for n in sizes) if mode == "best-worst" else sum(math.comb(n, 2) for n in sizes)
        assert len(found.preferences.pairs) + found.preferences.num_ties + found.preferences.num_wrong == comparisons
        assert found.num_alone == sizes.count(1)
        assert all(pair.gap >= max(margin, 1) for pair in found.preferences.pairs)
        assert all(
            pair.chosen.score.sample.prompt == pair.rejected.score.sample.prompt for pair in found.preferences.pairs
        )
        assert found.preferences.num_wrong == 0 or only_right
        if only_right:
            assert all(pair.chosen.is_right for pair in found.preferences.pairs)
            assert all(best.is_right for best in found.best)


def test_the_order_of_the_samples_does_not_matter_where_no_scores_are_equal():
    rng = np.random.default_rng(1)
    given = candidates({prompt: rng.normal(size=5).tolist() for prompt in "abc"})
    shuffled = [given[i] for i in rng.permutation(len(given))]
    for mode in ("best-worst", "all"):
        assert set(names(label(given, mode))) == set(names(label(shuffled, mode)))


def test_a_wrong_sample_is_not_chosen():
    given = candidates({"x": [0.9, 0.1], "y": [0.9, 0.1]}, correct=[False, True, True, False])
    found = label(given, only_right=True)
    assert names(found) == [("y0", "y1")]
    assert (found.preferences.num_wrong, [best.path.stem for best in found.best]) == (1, ["y0"])
    assert len(label(given).preferences.pairs) == 2


def test_samples_without_a_score_and_prompts_with_one_sample_are_counted():
    found = label(candidates({"x": [math.nan, 1.0], "y": [1.0, 2.0], "z": [5.0]}))
    assert names(found) == [("y1", "y0")]
    assert (found.num_unscored, found.num_alone, found.num_prompts) == (1, 2, 3)
    assert [best.path.stem for best in found.best] == ["x1", "y1", "z0"]


def test_the_same_words_with_other_metadata_are_another_prompt():
    """A judge looks at the metadata: scores of two pictures that were asked for different things do not compare."""
    samples = [Sample(f"{i}.png", "two dogs", i, {"count": i}) for i in (0, 1)]
    assert label([Candidate(Path(s.file), Score(s, float(s.seed), {})) for s in samples]).num_alone == 2


def test_votes_make_pairs_too():
    """A vote has no scores and no gap; the chosen one is the winner, whichever side it was on."""
    a, b = Candidate(Path("a.png"), model="one"), Candidate(Path("b.png"), model="two")
    votes = [(a, b, Verdict("x", 0, "win")), (a, b, Verdict("y", 0, "loss")), (a, b, Verdict("z", 0, "tie"))]
    found = preferences(votes)
    assert [(pair.prompt, pair.chosen, pair.rejected, pair.gap) for pair in found.pairs] == [
        ("x", a, b, None),
        ("y", b, a, None),
    ]
    assert (found.num_ties, found.num_wrong) == (1, 0)


def test_verdicts_of_scores_and_votes_of_the_same_signs_make_the_same_pairs():
    rng = np.random.default_rng(2)
    given = candidates({str(i): rng.integers(0, 3, 2).astype(float).tolist() for i in range(40)})
    by_scores = label(given, "all").preferences
    votes = []
    for first, second in zip(given[::2], given[1::2], strict=True):
        difference = first.score.value - second.score.value
        result = "tie" if difference == 0 else "win" if difference > 0 else "loss"
        votes.append((first, second, Verdict(first.score.sample.prompt, 0, result)))
    by_votes = preferences(votes)
    assert [(p.prompt, p.chosen, p.rejected) for p in by_votes.pairs] == [
        (p.prompt, p.chosen, p.rejected) for p in by_scores.pairs
    ]
    assert by_votes.num_ties == by_scores.num_ties > 0


def test_a_negative_margin_is_an_error():
    with pytest.raises(ValueError, match="negative"):
        label([], margin=-0.1)
