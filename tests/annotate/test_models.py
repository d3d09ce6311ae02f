"""Power, Bradley-Terry, the sequential interval and the item-response model on people of known truth."""

import choix
import numpy as np
import pytest
from scipy.special import expit, logit
from support.people import Crowd

from sipo.annotate.ability import item_response
from sipo.annotate.power import People, final_shares, items_needed
from sipo.annotate.sequential import sequential_interval
from sipo.annotate.strengths import bradley_terry, strengths
from sipo.annotate.votes import POINTS, two_stage
from sipo.evaluate.statistics.bootstrap import Estimate, bootstrap_mean


def rate(labels: list[str]) -> Estimate:
    return bootstrap_mean([POINTS[label] for label in labels], range(len(labels)), num_resamples=1000)


def simulate(people: People, items: int, groups: int, size: int, rng: np.random.Generator) -> list[str]:
    """The final labels of `items` items."""
    mean = 0.5 + (people.win_rate - 0.5) / (1 - people.ties)
    total = 1 / people.likeness - 1
    labels = []
    for p in rng.beta(mean * total, (1 - mean) * total, items):
        shares = [(1 - people.ties) * p, (1 - people.ties) * (1 - p), people.ties]
        counts = rng.multinomial(size, shares, groups)
        labels.append(two_stage([["a"] * a + ["b"] * b + ["tie"] * t for a, b, t in counts]))
    return labels


def test_shares_of_final_labels_are_those_of_simulated_people():
    people, rng = People(0.6, 0.2, 0.3), np.random.default_rng(0)
    labels = simulate(people, 4000, 3, 4, rng)
    for label, share in zip(("a", "b", "tie"), final_shares(people, 3, 4), strict=True):
        assert labels.count(label) / 4000 == pytest.approx(share, abs=0.025)
    assert final_shares(People(0.6, 0.2, 0.3), 1, 1) == pytest.approx((0.5, 0.3, 0.2), abs=2e-3)


def test_a_study_of_the_size_in_the_table_clears_one_half_as_often_as_it_says():
    people, rng = People(0.6), np.random.default_rng(1)
    items = items_needed(people, 3, 4, power=0.8)
    cleared = 0
    for _ in range(100):
        cleared += rate(simulate(people, items, 3, 4, rng)).low > 0.5
    assert 68 <= cleared <= 92


def test_more_people_and_clearer_wins_need_fewer_items():
    assert items_needed(People(0.6), 3, 4) < items_needed(People(0.6), 1, 3) < items_needed(People(0.6), 1, 1)
    assert items_needed(People(0.7), 3, 4) < items_needed(People(0.6), 3, 4) < items_needed(People(0.55), 3, 4)
    assert items_needed(People(0.4), 3, 4) == pytest.approx(items_needed(People(0.6), 3, 4), abs=1)
    with pytest.raises(ValueError, match="one half"):
        items_needed(People(0.5), 3, 4)


def test_bradley_terry_of_two_is_the_log_odds():
    found = bradley_terry(np.array([[0, 30], [10, 0]]), prior=0)
    assert found[0] - found[1] == pytest.approx(np.log(3), abs=1e-5)
    tied = bradley_terry(np.array([[0, 30.5], [10.5, 0]]), prior=0)
    assert tied[0] - tied[1] == pytest.approx(logit(30.5 / 41), abs=1e-5)


def test_bradley_terry_is_the_librarys():
    rng = np.random.default_rng(0)
    wins = rng.integers(1, 20, (5, 5))
    np.fill_diagonal(wins, 0)
    data = [(i, j) for i in range(5) for j in range(5) for _ in range(wins[i, j])]
    expected = choix.opt_pairwise(5, data)
    assert bradley_terry(wins, prior=0) == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_strengths_stay_finite_where_one_always_wins():
    found = strengths(["x", "y"], [(0, 1, 1.0)] * 8, list(range(8)))
    assert [each.name for each in found] == ["x", "y"]
    assert 0 < found[0].value < 10


@pytest.mark.slow
def test_intervals_of_strengths_cover_the_truth():
    rng, truth, covered = np.random.default_rng(0), np.array([0.6, 0.1, -0.7]), np.zeros(3)
    for study in range(100):
        results, items = [], []
        for item in range(150):
            for i, j in ((0, 1), (0, 2), (1, 2)):
                results.append((i, j, float(rng.random() < expit(truth[i] - truth[j]))))
                items.append(item)
        found = {each.name: each for each in strengths(["0", "1", "2"], results, items, 300, study)}
        covered += [found[str(n)].low <= truth[n] <= found[str(n)].high for n in range(3)]
    assert (covered >= 90).all()
    assert covered.sum() >= 279  # 93 of 100


def test_the_win_rates_interval_covers_the_truth():
    """100 studies of 12 annotators in 3 groups: the two-stage win rate's interval over items holds its true value."""
    people, rng = People(0.58), np.random.default_rng(3)
    wins, _, ties = final_shares(people, 3, 4)
    covered = 0
    for _ in range(100):
        labels = simulate(people, 120, 3, 4, rng)
        covered += rate(labels).low <= wins + ties / 2 <= rate(labels).high
    assert covered >= 93


def test_the_sequential_interval_covers_at_every_moment():
    """What was excluded at any moment stays excluded, so the last interval tells of all of them."""
    rng, covered, always_fixed = np.random.default_rng(4), 0, 0
    for _ in range(100):
        points = rng.choice([1.0, 0.5, 0.0], 250, p=[0.4, 0.2, 0.4])
        low, high = sequential_interval(points)
        covered += low <= 0.5 <= high
        moments = range(20, 251, 10)
        always_fixed += all(abs(points[:n].mean() - 0.5) < 1.96 * points[:n].std() / n**0.5 for n in moments)
    assert covered >= 95
    assert always_fixed < 90  # what looking again and again does to an interval of a fixed size


def test_the_sequential_interval_finds_what_is_there():
    rng = np.random.default_rng(5)
    low, high = sequential_interval((rng.random(400) < 0.7).astype(float))
    assert 0.5 < low < 0.7 < high < 0.85
    assert sequential_interval([]) == (0, 1)
    assert sequential_interval([0.5] * 50)[0] < 0.5 < sequential_interval([0.5] * 50)[1]


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(6)
    ability = np.array([2.0, 1.5, 1.2, 1.0, 0.8, 0.5, 0.0, 1.0])  # the last but one guesses
    side = np.array([0, 0, 0, 0, 0, 0, 0, 2.5])  # the last one is drawn to the left
    crowd = Crowd(rng.normal(0.4, 1.5, 150), ability, side)
    votes = crowd.votes(rng)
    items, people, labels, left = zip(*votes, strict=True)
    return crowd, item_response(items, people, [POINTS[label] for label in labels], left)


def test_the_item_response_model_ranks_people_by_ability(fitted):
    crowd, found = fitted
    assert np.corrcoef(crowd.ability[:7], found.ability[:7])[0, 1] > 0.9
    assert found.annotators[int(np.argmin(found.ability))] == 6
    assert found.ability[6] < 0.4


def test_the_item_response_model_finds_who_is_drawn_to_a_side(fitted):
    _, found = fitted
    assert found.side[7] == pytest.approx(2.5, abs=0.7)
    assert np.abs(found.side[:7]).max() < 0.5


def test_the_item_response_model_finds_preferences_and_difficulty(fitted):
    crowd, found = fitted
    assert np.corrcoef(crowd.preference, found.preference)[0, 1] > 0.85
    hard = np.argsort(np.abs(crowd.preference))
    assert found.difficulty[hard[:40]].mean() > found.difficulty[hard[-40:]].mean() + 0.15


def test_errors_of_abilities_are_honest(fitted):
    crowd, found = fitted
    scale = np.median(found.ability[:6] / crowd.ability[:6])  # ability and preference share a scale
    z = (np.log(found.ability[:6] / scale) - np.log(crowd.ability[:6])) / found.log_error[:6]
    assert np.abs(z).max() < 3
