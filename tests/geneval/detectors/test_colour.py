"""Colours by CLIP, against a transcription of the official evaluator's steps."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.detectors import LENGTH, clip_tokenizer
from transformers import CLIPModel

from sipo.geneval.detectors.colour import COLORS, ClipColors, crop_object
from sipo.geneval.rules import Detection

OFFICIAL = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]


def transcription(folder, image, detections, classname):
    """Per colour: normalise each template's feature, mean, normalise; per crop: the colour of the largest product."""
    model = CLIPModel.from_pretrained(folder).eval()
    columns = []
    for color in OFFICIAL:
        texts = [f"a photo of a {color} {classname}", f"a photo of a {color}-colored {classname}",
                 f"a photo of a {color} object"]  # fmt: skip
        tokens = clip_tokenizer()(texts, padding="max_length", max_length=LENGTH, return_tensors="pt")
        with torch.no_grad():
            embedded = model.get_text_features(**tokens).pooler_output.numpy()
        embedded = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
        mean = embedded.mean(0)
        columns.append(mean / np.linalg.norm(mean))
    names = []
    for detection in detections:
        shown = image
        if detection.mask is not None:
            grey = Image.new("RGB", image.size, color="#999")
            shown = Image.composite(image, grey, Image.fromarray(detection.mask))
        crop = shown.crop(detection.box).resize((32, 32), Image.Resampling.BICUBIC)  # the boxes here are square
        pixels = (np.asarray(crop) / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
        with torch.no_grad():
            feature = model.get_image_features(pixel_values=torch.tensor(pixels).permute(2, 0, 1)[None].float())
        names.append(OFFICIAL[int(np.argmax(np.array(columns) @ feature.pooler_output[0].numpy()))])
    return names


def boxes(rng, number, mask=False):
    for _ in range(number):
        x, y, side = rng.integers(0, 10), rng.integers(0, 6), rng.integers(4, 22)
        outline = rng.random((28, 40)) > 0.5 if mask else None
        yield Detection((float(x), float(y), float(x + side), float(y + side)), 0.9, mask=outline)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", ["cat", "wine glass"])
def test_agrees_with_the_official_steps(weights, images, name, mask):
    detections = list(boxes(np.random.default_rng(4), 12, mask))
    plain = [Image.new("RGB", (40, 28), shade) for shade in ("#d02020", "#2020d0", "#f0f0f0")]
    colors = ClipColors(str(weights["clip"]), device="cpu")
    for image in [images[0], *plain]:
        assert colors(image, detections, name) == transcription(weights["clip"], image, detections, name)


def test_the_colors_are_genevals():
    assert list(COLORS) == OFFICIAL


def test_nothing_to_name_needs_no_weights():
    assert ClipColors("nowhere/at-all", device="cpu")(Image.new("RGB", (4, 4)), [], "cat") == []


def test_a_crop_is_the_box_and_grey_outside_the_mask(images):
    mask = np.zeros((28, 40), dtype=bool)
    mask[5:10, 5:12] = True
    crop = np.asarray(crop_object(images[0], Detection((4.4, 5.0, 12.0, 9.6), 1.0, mask=mask)))
    assert crop.shape == (5, 8, 3)
    assert (crop[:, 0] == 0x99).all()
    assert (crop[:, 1:] == np.asarray(images[0])[5:10, 5:12]).all()


def test_a_sliver_still_has_a_pixel(images):
    assert crop_object(images[0], Detection((40.0, 27.9, 40.0, 28.0), 1.0)).size == (1, 1)
