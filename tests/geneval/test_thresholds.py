"""Which detections count, against a second writing in numpy and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipo.geneval.rules import Detection, Thresholds

BOX = (0.0, 0.0, 10.0, 10.0)


def scored(*scores):
    return {"cat": [Detection(BOX, score) for score in scores]}


def oracle(boxes, scores, least, most, limit):
    """Indices that stay, in order: a mask over a matrix of overlaps, corners' pixels belonging to the boxes."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    order = [i for i in order if scores[i] > least][:most]
    corners = np.array(boxes, dtype=float).reshape(-1, 4)
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(-1)
    area = np.clip(corners[:, 2:] - corners[:, :2] + 1, 0, None).prod(-1)
    with np.errstate(invalid="ignore"):
        overlaps = np.nan_to_num(shared / (area[:, None] + area[None] - shared))
    alive = dict.fromkeys(order, True)
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            if alive[i] and limit < 1 and overlaps[i, j] >= limit:
                alive[j] = False
    return [i for i in order if alive[i]]


whole = st.integers(0, 12)
entries = st.lists(st.tuples(whole, whole, whole, whole), max_size=24)


@settings(max_examples=300)
@given(entries, st.sampled_from([0.2, 0.5, 0.9, 1.0]), st.integers(1, 16), st.randoms(use_true_random=False))
def test_agrees_with_a_second_writing(boxes, limit, most, random):
    scores = random.sample([i / 100 for i in range(100)], len(boxes))
    thresholds = Thresholds(score=0.3, max_per_class=most, max_overlap=limit)
    kept = thresholds.keep({"cat": [Detection(b, s) for b, s in zip(boxes, scores, strict=True)]}, "colors")
    expected = oracle(boxes, scores, 0.3, most, limit)
    assert [d.score for d in kept.get("cat", [])] == [scores[i] for i in expected]


def test_the_official_defaults():
    assert Thresholds() == Thresholds(score=0.3, counting=0.9, max_per_class=16, max_overlap=1.0)


@pytest.mark.parametrize("tag", ["single_object", "two_object", "colors", "position", "color_attr"])
def test_counting_alone_asks_for_more_confidence(tag):
    found = scored(0.31, 0.3, 0.95, 0.9)
    assert [d.score for d in Thresholds().keep(found, tag)["cat"]] == [0.95, 0.9, 0.31]
    assert [d.score for d in Thresholds().keep(found, "counting")["cat"]] == [0.95]


def test_sixteen_of_a_class_at_most_the_most_confident():
    found = scored(*(0.4 + i / 100 for i in range(20)))
    kept = Thresholds().keep(found, "colors")["cat"]
    assert [round(d.score, 2) for d in kept] == [round(0.59 - i / 100, 2) for i in range(16)]


def test_copies_count_unless_an_overlap_is_asked_for():
    """As in the official evaluator, whose max_overlap is 1; and the cut to sixteen comes before."""
    found = scored(0.99, 0.98, 0.97)
    assert len(Thresholds().keep(found, "counting")["cat"]) == 3
    assert [d.score for d in Thresholds(max_overlap=0.5).keep(found, "counting")["cat"]] == [0.99]
    far = {"cat": [*scored(0.9, 0.8)["cat"], Detection((50, 50, 60, 60), 0.7)]}
    assert len(Thresholds(max_per_class=2, max_overlap=0.5).keep(far, "colors")["cat"]) == 1


def test_classes_without_a_detection_that_counts_are_gone():
    assert Thresholds().keep(scored(0.1) | {"dog": []}, "colors") == {}
