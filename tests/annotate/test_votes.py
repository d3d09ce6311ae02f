"""The public functions on labels against the paper's text, published examples and a library."""

import itertools
import math
import subprocess
import sys

import krippendorff
import numpy as np
import pytest

from sipo.annotate.votes import agreement, majority, two_stage, win_rate

FLEISS_1971 = [  # the worked example that textbooks repeat: 10 subjects, 14 raters, 5 categories
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
KRIPPENDORFF = [  # four observers, twelve units (Krippendorff 2011, "Computing Krippendorff's alpha", section D)
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(
    ("labels", "by_tie", "by_plurality"),
    [
        ("aaab", "a", "a"),
        ("aabb", "tie", "tie"),
        ("aabt", "tie", "a"),
        ("abbt", "tie", "b"),
        ("attb", "tie", "tie"),
        ("abt", "tie", "tie"),
        ("aab", "a", "a"),
        ("b", "b", "b"),
    ],
)
def test_majority(labels, by_tie, by_plurality):
    votes = [{"t": "tie"}.get(letter, letter) for letter in labels]
    for order in itertools.permutations(votes):
        assert majority(order) == by_tie
        assert majority(order, rule="plurality") == by_plurality


@pytest.mark.parametrize("rule", ["tie", "plurality"])
def test_swapping_the_sides_swaps_the_label(rule):
    swap = {"a": "b", "b": "a", "tie": "tie"}
    for votes in itertools.product(swap, repeat=4):
        assert majority([swap[vote] for vote in votes], rule) == swap[majority(votes, rule)]


def test_the_two_stages_are_the_papers():
    """E.3: all agree -> that label; one label at least twice -> that; no strict majority among the three -> tie."""
    win, loss, tie = ["a", "a", "a", "b"], ["b", "b", "b", "tie"], ["a", "a", "b", "b"]
    assert two_stage([win, win, win]) == "a"
    assert two_stage([win, win, loss]) == "a"
    assert two_stage([tie, tie, loss]) == "tie"
    assert two_stage([win, tie, loss]) == "tie"
    assert two_stage({1: loss, 2: win, 3: loss}) == "b"
    assert two_stage({1: loss, 2: []}) == "b"
    flat = majority(win + win + ["b"] * 4)
    assert flat == "tie"
    assert two_stage([win, win, ["b"] * 4]) == "a"  # 6 of 12 votes, and yet two groups of three


def test_win_rate_counts_a_tie_half():
    assert win_rate(["a", "a", "b", "tie"]) == 0.625
    assert win_rate(["b"]) == 0
    rng = np.random.default_rng(0)
    votes = rng.choice(["a", "b", "tie"], 999).tolist()
    swapped = [{"a": "b", "b": "a"}.get(vote, vote) for vote in votes]
    assert win_rate(votes) + win_rate(swapped) == pytest.approx(1)


@pytest.mark.parametrize("function", [majority, win_rate, lambda labels: two_stage([labels])])
def test_what_is_no_label_is_refused(function):
    for wrong in ([], ["A"], ["a", None], ["both bad"]):
        with pytest.raises(ValueError, match="label"):
            function(wrong)
    with pytest.raises(ValueError, match="rule"):
        majority(["a"], rule="most")


def test_agreement_of_the_published_examples():
    assert agreement(FLEISS_1971)["fleiss_kappa"] == pytest.approx(0.210, abs=5e-4)
    units = [[row[n] for row in KRIPPENDORFF if row[n]] for n in range(12)]
    table = [[unit.count(value) for value in range(1, 6)] for unit in units]
    assert agreement(table)["krippendorff_alpha"] == pytest.approx(0.743, abs=5e-4)


def test_agreement_in_closed_form():
    everyone = agreement([[4, 0], [0, 4], [4, 0]])
    assert everyone["fleiss_kappa"] == pytest.approx(1)
    assert everyone["krippendorff_alpha"] == pytest.approx(1)
    split = agreement(
        [[1, 1]] * 5
    )  # every pair of votes differs: P = 0, P_e = 1/2; D_o = 1, D_e = 10 * 5 * 2 / (10 * 9)
    assert split["fleiss_kappa"] == pytest.approx(-1)
    assert split["krippendorff_alpha"] == pytest.approx(1 - 1 / (50 / 90))
    assert all(math.isnan(value) for value in agreement([[3, 0], [2, 0]]).values())
    assert all(math.isnan(value) for value in agreement([[1, 0], [0, 1]]).values())


def test_alpha_is_the_librarys_for_unequal_numbers_of_votes():
    rng = np.random.default_rng(1)
    for _ in range(20):
        table = rng.multinomial(rng.integers(2, 9), rng.dirichlet(np.ones(3)), size=15) + rng.integers(0, 2, (15, 3))
        expected = krippendorff.alpha(value_counts=table, level_of_measurement="nominal")
        assert agreement(table)["krippendorff_alpha"] == pytest.approx(expected)


def test_guessing_agrees_by_chance_alone():
    rng = np.random.default_rng(2)
    found = agreement(rng.multinomial(12, [0.4, 0.35, 0.25], size=4000))
    assert abs(found["fleiss_kappa"]) < 0.01
    assert abs(found["krippendorff_alpha"]) < 0.01


def test_items_with_one_vote_do_not_count():
    table = [[3, 1, 0], [0, 2, 2], [4, 0, 0]]
    assert agreement([*table, [0, 0, 1], [0, 0, 0]]) == agreement(table)


def test_votes_need_no_torch():
    code = "import sys, sipo.annotate.votes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
