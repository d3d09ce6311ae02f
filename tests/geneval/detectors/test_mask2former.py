"""Mask2Former through its real loading path, against a second writing, mask by mask."""

import numpy as np
import pytest
import torch
from support import detectors as tiny_detectors
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

from sipo.errors import UserError
from sipo.geneval.detectors.mask2former import COCO, Mask2Former, box_of

SIZE = {"shortest_edge": 32, "longest_edge": 48}


def detector(weights, **options):
    return Mask2Former(
        str(weights["mask2former"]), device="cpu", short_side=32, long_side=48, **{"floor": 0.0, **options}
    )


def second_writing(folder, image):
    """{(class, score, box)} of the ten likeliest pairs of a query and a class."""
    pixels = Mask2FormerImageProcessorPil(size=SIZE)(image, return_tensors="pt")
    with torch.no_grad():
        outputs = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()(**pixels)
    logits = outputs.class_queries_logits[0].double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    pairs = sorted(((shares[q, c], q, c) for q in range(10) for c in range(80)), reverse=True)[:10]
    height, width = np.array(pixels["pixel_mask"][0].bool().nonzero().max(0).values) + 1
    rows = []
    for share, query, label in pairs:
        mask = outputs.masks_queries_logits[:, [query]]
        mask = torch.nn.functional.interpolate(mask, pixels["pixel_values"].shape[2:], mode="bilinear")
        mask = torch.nn.functional.interpolate(mask[:, :, :height, :width], image.size[::-1], mode="bilinear")[0, 0]
        inside = mask.numpy() > 0
        if inside.any():
            y, x = np.nonzero(inside)
            score = share * (1 / (1 + np.exp(-mask.double().numpy())))[inside].mean()
            rows.append((COCO[label], score, (x.min(), y.min(), x.max() + 1, y.max() + 1), inside))
    return sorted(rows, key=lambda row: -row[1])


def test_agrees_with_a_second_writing(weights, images):
    found = detector(weights)(images, COCO)
    for image, mine in zip(images, found, strict=True):
        theirs = second_writing(weights["mask2former"], image)
        ours = sorted(((n, d) for n, group in mine.items() for d in group), key=lambda entry: -entry[1].score)
        assert theirs
        assert [n for n, _ in ours] == [n for n, *_ in theirs]
        assert [d.score for _, d in ours] == pytest.approx([score for _, score, *_ in theirs], rel=1e-4)
        assert [d.box for _, d in ours] == [box for *_, box, _ in theirs]
        assert all((d.mask == mask).all() for (_, d), (*_, mask) in zip(ours, theirs, strict=True))


def test_only_the_asked_classes_come_back(weights, images):
    (every, *_) = detector(weights)(images, COCO)
    name = next(iter(every))
    assert list(detector(weights)(images[:1], [name])[0]) == [name]
    assert detector(weights, floor=0.99)(images, COCO) == [{}, {}, {}]


def test_the_classes_are_cocos(weights, images):
    assert len(set(COCO)) == 80
    with pytest.raises(UserError, match="not circle"):
        detector(weights)(images, ["cat", "circle"])


def test_other_sets_of_classes_are_refused(tmp_path, images):
    folder = tiny_detectors.mask2former(tmp_path, num_labels=5)
    with pytest.raises(UserError, match="has 5 classes, not the 80"):
        Mask2Former(str(folder), device="cpu", short_side=32, long_side=48)(images, ["cat"])


def test_the_box_of_a_mask():
    mask = torch.zeros(5, 6, dtype=torch.bool)
    assert box_of(mask) == (0, 0, 0, 0)
    mask[1:3, 4] = True
    assert box_of(mask) == (4, 1, 5, 3)
