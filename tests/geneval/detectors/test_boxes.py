"""Suppression against a second writing over pixels, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sipo.geneval.detectors.boxes import collect, overlap, to_pixels

whole = st.integers(0, 12)
boxes_of = st.lists(st.tuples(whole, whole, whole, whole), max_size=8)


def covered(box):
    grid = np.zeros((12, 12), dtype=bool)
    grid[box[1] : box[3], box[0] : box[2]] = True
    return grid


@settings(max_examples=300)
@given(boxes_of, st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_agrees_with_counting_pixels(boxes, limit):
    boxes = [b for b in boxes if b[0] < b[2] and b[1] < b[3]]
    scores = [1 - 0.1 * i for i in range(len(boxes))]
    labels = ["cat" if i % 2 else "dog" for i in range(len(boxes))]
    kept = []
    for i, box in enumerate(boxes):
        a = covered(box)
        same = [covered(boxes[k]) for k in kept if labels[k] == labels[i]]
        if all((a & b).sum() / (a | b).sum() <= limit for b in same):
            kept.append(i)
    order = np.random.default_rng(0).permutation(len(boxes))
    found = collect([boxes[i] for i in order], [scores[i] for i in order], [labels[i] for i in order], limit)
    for name in ("cat", "dog"):
        assert [d.box for d in found.get(name, [])] == [boxes[i] for i in kept if labels[i] == name]


def test_overlap_by_hand():
    assert overlap((0, 0, 4, 4), (2, 0, 6, 4)) == pytest.approx(8 / 24)
    assert overlap((0, 0, 4, 4), (4, 4, 8, 8)) == 0
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0


def test_boxes_in_a_padded_square_are_cut_off_at_the_picture():
    """The picture of 40 x 20 fills the upper half of a square of 40."""
    boxes = torch.tensor([[0.5, 0.25, 0.5, 0.25], [0.5, 0.5, 1.0, 1.0], [0.5, 0.8, 0.1, 0.1]])
    inside, keep = to_pixels(boxes, (40, 40), (40, 20))
    assert inside.tolist() == [[10, 5, 30, 15], [0, 0, 40, 20], pytest.approx([18, 20, 22, 20])]
    assert keep.tolist() == [True, True, False]
