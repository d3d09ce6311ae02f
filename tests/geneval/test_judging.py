"""Judging a folder with a stand-in for the detector, whose detections are known: each rule through the whole path."""

import json

import pytest
from PIL import Image

from sipo.errors import UserError
from sipo.geneval.judging import judge_folder
from sipo.geneval.rules import Detection, Thresholds

CLAUSE = {"class": "cat", "count": 1}


def entry(tag, *include, exclude=None):
    return {"tag": tag, "prompt": f"{tag} of {include}", "include": list(include)} | (
        {"exclude": exclude} if exclude else {}
    )


class Detector:
    """What stands in a picture is looked up by its size: the one of prompt i is 10 + i wide."""

    name = "stand-in"

    def __init__(self, found):
        self.found, self.asked, self.sizes = found, [], []

    def __call__(self, images, classes):
        self.asked.append((len(images), list(classes)))
        self.sizes += [image.size for image in images]
        return [self.found[image.width - 10] for image in images]


class Colors:
    """The colour of a detection is told by its left side; what was asked is remembered."""

    def __init__(self):
        self.asked = []

    def __call__(self, image, detections, name):
        self.asked.append((name, [d.score for d in detections]))
        return ["red" if d.box[0] < 5 else "blue" for d in detections]


def cat(x=0.0, score=0.95, y=0.0):
    return Detection((x, y, x + 4, y + 4), score)


def folder_of(path, entries):
    for number, metadata in enumerate(entries):
        samples = path / f"{number:05d}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(metadata))
        Image.new("RGB", (10 + number, 9)).save(samples / "0000.png")
    return path


def verdicts(tmp_path, cases, colors=None):
    """[(correct, reason)] of [(metadata, detections)]."""
    folder = folder_of(tmp_path, [metadata for metadata, _ in cases])
    judged = judge_folder(folder, Detector([found for _, found in cases]), colors, Thresholds())
    assert not judged.problems
    return [(record["correct"], record["reason"]) for record in judged.records]


def test_confidence_and_counting(tmp_path):
    two = entry("counting", {"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}])
    found = [
        (entry("single_object", CLAUSE), {"cat": [cat(score=0.31)]}),
        (entry("single_object", CLAUSE), {"cat": [cat(score=0.3)], "dog": [cat()]}),
        (two, {"cat": [cat(score=0.91), cat(9, 0.92)]}),
        (two, {"cat": [cat(score=0.9), cat(9, 0.92)]}),  # one is not sure enough to be counted
        (two, {"cat": [cat(score=0.91), cat(9, 0.92), cat(9, 0.95, y=5)]}),
        (two, {"cat": [cat(score=0.91), cat(9, 0.92), cat(9, 0.85, y=5)]}),  # nor is the one too many
    ]
    results = verdicts(tmp_path, found)
    assert [correct for correct, _ in results] == [True, False, True, False, False, True]
    assert results[3][1] == "expected cat >= 2, found 1"
    assert results[4][1] == "expected cat < 3, found 3"


def test_position_against_the_first_of_each(tmp_path):
    left = entry("position", {"class": "dog", "count": 1}, CLAUSE | {"position": ["left of", 0]})
    found = [
        (left, {"cat": [cat(0)], "dog": [cat(20)]}),
        (left, {"cat": [cat(20)], "dog": [cat(0)]}),
        (left, {"cat": [cat(0, 0.5), cat(40, 0.9)], "dog": [cat(20)]}),  # the surer cat is on the right
    ]
    assert [correct for correct, _ in verdicts(tmp_path, found)] == [True, False, False]


def test_colors_are_named_for_the_detections_that_are_judged_and_no_others(tmp_path):
    red, colors = entry("colors", CLAUSE | {"color": "red"}), Colors()
    found = [
        (red, {"cat": [cat(9, 0.5), cat(0, 0.9)]}),
        (red, {"cat": [cat(0, 0.5), cat(9, 0.9)]}),
        (red, {"dog": [cat(0)]}),
        (entry("single_object", CLAUSE), {"cat": [cat()]}),
    ]
    results = verdicts(tmp_path, found, colors)
    assert [correct for correct, _ in results] == [True, False, False, True]
    assert results[1][1] == "expected red cat >= 1, found blue"
    assert colors.asked == [("cat", [0.9]), ("cat", [0.9])]


def test_two_objects_of_different_colors(tmp_path):
    both = entry("color_attr", CLAUSE | {"color": "red"}, {"class": "dog", "count": 1, "color": "blue"})
    found = [(both, {"cat": [cat(0)], "dog": [cat(9)]}), (both, {"cat": [cat(9)], "dog": [cat(0)]})]
    results = verdicts(tmp_path, found, Colors())
    assert [correct for correct, _ in results] == [True, False]
    assert len(results[1][1].splitlines()) == 2


def test_the_record_has_the_official_fields(tmp_path):
    metadata = entry("single_object", CLAUSE)
    folder = folder_of(tmp_path, [metadata])
    detector = Detector([{"cat": [cat(1, 0.5), cat(2, 0.75)], "dog": [cat(0, 0.2)]}])
    (record,) = judge_folder(folder, detector, None, Thresholds()).records
    assert list(record) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert record["filename"] == str(folder / "00000/samples/0000.png")
    assert json.loads(record["metadata"]) == metadata
    assert json.loads(record["details"]) == {"cat": [[2, 0, 6, 4, 0.75], [1, 0, 5, 4, 0.5]]}


def test_the_detector_gets_batches_and_every_class_of_the_folder(tmp_path):
    folder = folder_of(tmp_path, [entry("single_object", {"class": name, "count": 1}) for name in ("b", "a", "b")])
    detector = Detector([{}, {}, {}])
    judge_folder(folder, detector, None, Thresholds(), batch_size=2)
    assert detector.asked == [(2, ["a", "b"]), (1, ["a", "b"])]


def test_a_picture_is_turned_as_it_says(tmp_path):
    folder = folder_of(tmp_path, [entry("single_object", CLAUSE)])
    turned = Image.new("RGB", (9, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(folder / "00000/samples/0000.png", exif=exif)
    detector = Detector([{}])
    judge_folder(folder, detector, None, Thresholds())
    assert detector.sizes == [(10, 9)]


def test_broken_pictures_are_named_and_left_out(tmp_path):
    folder = folder_of(tmp_path, [entry("single_object", CLAUSE)] * 4)
    Image.effect_noise((64, 64), 50).save(folder / "00002/samples/0000.png")
    whole = (folder / "00002/samples/0000.png").read_bytes()
    (folder / "00002/samples/0000.png").write_bytes(whole[: len(whole) // 2])
    (folder / "00003/samples/0000.png").write_bytes(b"")
    (folder / "00001/samples/0000.png").unlink()
    detector = Detector([{"cat": [cat()]}] * 4)
    judged = judge_folder(folder, detector, None, Thresholds(), batch_size=2)
    assert [record["correct"] for record in judged.records] == [True]
    assert [name.split()[0] for name in judged.unreadable] == ["00002/samples/0000.png", "00003/samples/0000.png"]
    unread, missing = judged.problems
    assert unread.startswith("2 could not be read and were not judged: 00002/samples/0000.png (")
    assert missing == "1 are missing: 00001/samples: 0 of 1 pictures"
    (folder / "00000/samples/0000.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 3 pictures can be read, 00000/samples/0000"):
        judge_folder(folder, detector, None, Thresholds())
