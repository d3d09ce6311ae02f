"""OWLv2 through its real loading path, against transformers' own processing."""

import pytest
import torch
from transformers import CLIPTokenizer, Owlv2ForObjectDetection, Owlv2ImageProcessorPil, Owlv2Processor

from sipo.errors import UserError
from sipo.geneval.detectors.owlv2 import Owlv2

CLASSES = ["cat", "traffic light", "dog"]


def library(folder, image, threshold):
    """(class, score, box) of every box, as transformers gives them; boxes may reach beyond the picture."""
    processor = Owlv2Processor(
        image_processor=Owlv2ImageProcessorPil.from_pretrained(folder), tokenizer=CLIPTokenizer.from_pretrained(folder)
    )
    texts = [[f"a photo of a {name}" for name in CLASSES]]
    inputs = processor(text=texts, images=image, return_tensors="pt")
    with torch.no_grad():
        outputs = Owlv2ForObjectDetection.from_pretrained(folder).eval()(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        outputs, threshold=threshold, target_sizes=[image.size[::-1]], text_labels=[CLASSES]
    )
    return zip(found["text_labels"], found["scores"].tolist(), found["boxes"].tolist(), strict=True)


def test_agrees_with_transformers(weights, images):
    found = Owlv2(str(weights["owlv2"]), device="cpu", max_overlap=1.0)(images, CLASSES)
    for image, mine in zip(images, found, strict=True):
        expected = {name: [] for name in CLASSES}
        for name, score, (x0, y0, x1, y1) in library(weights["owlv2"], image, 0.1):
            box = max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)
            if box[0] < box[2] and box[1] < box[3]:
                expected[name].append((score, box))
        assert sum(map(len, expected.values())) > 3
        for name in CLASSES:
            theirs = sorted(expected[name], reverse=True)
            ours = sorted(((d.score, d.box) for d in mine.get(name, [])), reverse=True)
            assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], abs=1e-5)
            assert [box for _, box in ours] == [pytest.approx(box, abs=1e-3) for _, box in theirs]


def test_each_class_comes_sorted_and_without_near_copies(weights, images):
    every = Owlv2(str(weights["owlv2"]), device="cpu", max_overlap=1.0)(images, CLASSES)
    fewer = Owlv2(str(weights["owlv2"]), device="cpu", max_overlap=0.2)(images, CLASSES)
    for all_of, some in zip(every, fewer, strict=True):
        for name, detections in some.items():
            assert set(detections) <= set(all_of[name])
            assert detections == sorted(detections, key=lambda d: -d.score)
    assert sum(len(v) for f in fewer for v in f.values()) < sum(len(v) for f in every for v in f.values())


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(UserError, match="does not load as Owlv2ForObjectDetection"):
        Owlv2(str(tmp_path), device="cpu")([], ["cat"])
