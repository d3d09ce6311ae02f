"""Balance of labels by position and by source model, and agreement with a score, on counted examples."""

import pytest
from scipy.stats import binomtest

from sipo.data.pairs.rows import Origin
from sipo.profile.labels import agreement, by_model, by_position, told_by_models


def test_positions_are_counted_and_tested():
    origins = [Origin(True)] * 15 + [Origin(False)] * 5 + [Origin(None)] * 3
    found = by_position(origins, [f"prompt {n}" for n in range(23)])
    assert (found.tally.num_pairs, found.tally.wins, found.tally.win_rate.value) == (20, 15, 0.75)
    assert found.p == pytest.approx(binomtest(15, 20).pvalue)
    assert by_position([Origin(None)] * 3, ["a", "b", "c"]) is None


def test_models_are_counted_against_other_models_alone():
    origins = [Origin(None, ("a", "b"))] * 3 + [
        Origin(None, ("b", "a")),
        Origin(None, ("a", "a")),
        Origin(None, ("c", "")),
    ]
    found = by_model(origins, list("pqrstu"))
    assert {name: each.members for name, each in found.items()} == {"a": 6, "b": 4, "c": 1}
    assert (found["a"].balance.tally.wins, found["a"].balance.tally.losses) == (3, 1)
    assert (found["b"].balance.tally.wins, found["b"].balance.tally.losses) == (1, 3)
    assert found["c"].balance is None


def test_what_models_tell_is_the_share_of_the_majority():
    origins = [Origin(None, ("a", "b"))] * 18 + [Origin(None, ("b", "a"))] * 6  # 18 of 24
    origins += [Origin(None, ("c", "b"))] * 10 + [Origin(None, ("b", "c"))] * 10  # 10 of 20
    assert told_by_models(origins) == ((18 + 10) / 44, 44)
    few = [Origin(None, ("a", "d"))] * 19
    assert told_by_models(origins + few) == told_by_models(origins)
    assert told_by_models(few) is None


def test_agreement_counts_ties_half():
    found = agreement([0.5, 0.1, -0.2, 0.0], ["a", "b", "c", "d"])
    assert (found.tally.wins, found.tally.ties, found.tally.losses) == (2, 1, 1)
    assert found.tally.win_rate.value == 2.5 / 4
    assert found.tally.difference.value == pytest.approx(0.1)
