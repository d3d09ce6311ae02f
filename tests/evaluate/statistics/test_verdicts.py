"""Verdicts from scores and from votes count the same: win rates, intervals and sign tests do not need differences."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from sipo.evaluate.statistics.bootstrap import bootstrap_mean
from sipo.evaluate.statistics.significance import significance
from sipo.evaluate.statistics.verdicts import Verdict, result_of, tally


def scored(differences, prompts, tie_margin=0.0) -> list[Verdict]:
    rows = zip(differences, prompts, strict=True)
    return [Verdict(str(prompt), i, result_of(d, tie_margin), float(d)) for i, (d, prompt) in enumerate(rows)]


def votes(verdicts) -> list[Verdict]:
    """The same verdicts by people, who measure nothing."""
    return [replace(verdict, difference=None) for verdict in verdicts]


def without_means(tests):
    return replace(tests, p_mean=None)


@pytest.mark.parametrize("tie_margin", [0.0, 0.4])
def test_votes_agree_with_scores_that_have_their_signs(tie_margin):
    """One pair a prompt, so that a prompt's mean difference has the sign of its verdict."""
    given = scored(np.random.default_rng(0).normal(0.2, 1, 60), range(60), tie_margin)
    by_votes, by_scores = tally(votes(given)), tally(given)
    assert by_votes == replace(by_scores, difference=None)
    assert by_scores.ties > 0 or tie_margin == 0
    assert significance(votes(given)) == without_means(significance(given, tie_margin))


def test_several_votes_on_a_prompt_count_as_differences_of_one():
    """Prompts of one to five votes: a prompt is won where its wins outnumber its losses."""
    rng = np.random.default_rng(1)
    prompts = np.repeat(np.arange(40), rng.integers(1, 6, 40))
    given = scored(rng.integers(-1, 2, len(prompts)), prompts)
    assert tally(votes(given)) == replace(tally(given), difference=None)
    tests = significance(votes(given))
    assert tests == without_means(significance(given))
    sums = np.bincount(prompts, [verdict.difference for verdict in given])
    assert (tests.prompts_won, tests.prompts_lost) == ((sums > 0).sum(), (sums < 0).sum())
    assert tests.p_sign == pytest.approx(
        stats.binomtest(tests.prompts_won, tests.prompts_won + tests.prompts_lost).pvalue
    )


def test_a_margin_of_scores_has_no_part_in_votes():
    given = votes(scored([1.0, 1.0, -1.0], "abc"))
    assert significance(given, tie_margin=5.0) == significance(given)


def test_what_is_not_measured_is_absent_and_not_zero():
    given = scored([0.5, -0.25, 0.0], "abc")
    assert tally(given).difference.value == pytest.approx(0.25 / 3)
    for unmeasured in (votes(given), [*given[:2], replace(given[2], difference=None)]):
        assert tally(unmeasured).difference is None
        assert significance(unmeasured).p_mean is None


def test_the_counts_and_the_win_rate_by_hand():
    given = [Verdict("a", 0, "win"), Verdict("a", 1, "tie"), Verdict("b", 0, "loss"), Verdict("c", 0, "win")]
    counted = tally(given)
    assert (counted.num_pairs, counted.num_prompts) == (4, 3)
    assert (counted.wins, counted.ties, counted.losses) == (2, 1, 1)
    assert counted.win_rate == bootstrap_mean([1.0, 0.5, 0.0, 1.0], ["a", "a", "b", "c"])
    assert counted.win_rate.value == pytest.approx((2 + 0.5) / 4)


def test_turning_the_sides_turns_the_win_rate():
    given = votes(scored(np.random.default_rng(2).integers(-1, 2, 50), range(50)))
    turned = [replace(v, result={"win": "loss", "tie": "tie", "loss": "win"}[v.result]) for v in given]
    a, b = tally(given).win_rate, tally(turned).win_rate
    assert (b.value, b.low, b.high) == pytest.approx((1 - a.value, 1 - a.high, 1 - a.low))
    assert significance(turned).p_sign == significance(given).p_sign


def test_differences_within_the_margin_tie():
    assert [result_of(d, 0.5) for d in (0.6, 0.5, 0.0, -0.5, -0.6)] == ["win", "tie", "tie", "tie", "loss"]
    assert [result_of(d) for d in (1e-9, 0.0, -1e-9)] == ["win", "tie", "loss"]


def test_no_verdicts_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        tally([])
