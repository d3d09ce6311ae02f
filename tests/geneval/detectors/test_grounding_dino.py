"""Grounding DINO through its real loading path, against a second writing over the whole caption."""

import pytest
import torch
from support import detectors as tiny_detectors
from transformers import GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

from sipo.errors import UserError
from sipo.geneval.detectors.grounding_dino import GroundingDino, caption_of

CLASSES = ["cat", "traffic light", "Dog"]


def second_writing(folder, image):
    """[(class, score, box)] of every box: the caption is tokenised whole, and classes are told apart by its dots."""
    tokens = tiny_detectors.bert_tokenizer()("cat. traffic light. Dog.", return_tensors="pt")
    pixels = GroundingDinoImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
    with torch.no_grad():
        outputs = GroundingDinoForObjectDetection.from_pretrained(folder).eval()(**pixels, **tokens)
    members, current = {name: [] for name in CLASSES}, iter(CLASSES)
    name = next(current)
    for place, token in enumerate(tokens["input_ids"][0].tolist()):
        if token == 1012:
            name = next(current, None)
        elif token not in (101, 102):
            members[name].append(place)
    rows = []
    for logits, (x, y, w, h) in zip(outputs.logits[0], outputs.pred_boxes[0].tolist(), strict=True):
        shares = [1 / (1 + (-value).exp().item()) for value in logits]
        means = {name: sum(shares[p] for p in places) / len(places) for name, places in members.items()}
        best = max(means, key=means.get)
        corners = [(x - w / 2) * image.width, (y - h / 2) * image.height,
                   (x + w / 2) * image.width, (y + h / 2) * image.height]  # fmt: skip
        limits = [image.width, image.height] * 2
        box = [min(max(value, 0), limit) for value, limit in zip(corners, limits, strict=True)]
        if box[0] < box[2] and box[1] < box[3]:
            rows.append((means[best], best, box))
    return sorted(rows, reverse=True)


def test_agrees_with_a_second_writing(weights, images):
    detector = GroundingDino(str(weights["grounding_dino"]), device="cpu", floor=0.0, max_overlap=1.0)
    for image in images:
        (found,) = detector([image], CLASSES)
        ours = sorted(((d.score, name, d.box) for name, group in found.items() for d in group), reverse=True)
        theirs = second_writing(weights["grounding_dino"], image)
        assert [(s, n) for s, n, _ in ours] == [(pytest.approx(s, abs=1e-5), n) for s, n, _ in theirs]
        assert [box for *_, box in ours] == [pytest.approx(box, abs=1e-3) for *_, box in theirs]


def test_the_caption_is_that_of_the_whole_text():
    tokenizer = tiny_detectors.bert_tokenizer()
    caption, spans = caption_of(CLASSES, tokenizer)
    assert caption == tokenizer("cat. traffic light. Dog.")["input_ids"]
    assert [stop - start for start, stop in spans] == [3, 12, 3]
    assert tokenizer.convert_ids_to_tokens(caption[slice(*spans[2])]) == ["d", "##o", "##g"]


def test_a_batch_of_one_size_gives_what_each_picture_gives(weights, images):
    detector = GroundingDino(str(weights["grounding_dino"]), device="cpu")
    together = detector(images[:2], CLASSES)
    for image, found in zip(images[:2], together, strict=True):
        (alone,) = detector([image], CLASSES)
        assert {n: len(g) for n, g in alone.items()} == {n: len(g) for n, g in found.items()}


def test_too_many_classes_are_refused(weights, images):
    with pytest.raises(UserError, match="300 class names make"):
        GroundingDino(str(weights["grounding_dino"]), device="cpu")(images, ["cat"] * 300)
