"""Two real processes judge as one does, and a killed judging is taken over if nothing has changed."""

import json
import time
from dataclasses import replace

import pytest
from PIL import Image
from support.processes import Kill, in_one, in_two

from sipo.geneval.judging import JUDGING, Judged, judge_folder
from sipo.geneval.rules import Detection, Thresholds

OFFICIAL = Thresholds()
ENTRY = {"tag": "single_object", "prompt": "a cat", "include": [{"class": "cat", "count": 1}]}


class OfItsBatch:
    """Detections that depend on all of a batch, as the rounding of a network's sums does."""

    name = "stand-in"

    def __init__(self, slow: float = 0.0):
        self.judged, self.slow = 0, slow

    def __call__(self, images, classes):
        time.sleep(self.slow)
        self.judged += len(images)
        width = sum(image.width for image in images)
        return [{"cat": [Detection((0, 0, width, image.width), 0.25 + width % 7 / 8)]} for image in images]


@pytest.fixture
def folder(tmp_path):
    for number in range(11):
        samples = tmp_path / "pictures" / f"{number:05d}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(ENTRY))
        Image.new("RGB", (10 + number, 9)).save(samples / "0000.png")
    (samples / "0000.png").write_bytes(b"no picture")
    return tmp_path / "pictures"


def judges(processes, folder, thresholds=OFFICIAL):
    """What came out, and how many pictures this process judged; the last one, which may be killed, is fast."""
    detector = OfItsBatch(0.0 if processes.rank == processes.world - 1 else 0.2)
    return judge_folder(folder, detector, None, thresholds, 2, processes=processes), detector.judged


@pytest.fixture
def expected(folder) -> Judged:
    judged, count = in_one(judges, folder)[0]
    assert count == 10
    assert {record["correct"] for record in judged.records} == {True, False}
    assert judged.unreadable == ["00010/samples/0000.png (UnidentifiedImageError)"]
    return judged


def test_two_processes_judge_as_one_does(folder, expected):
    (first, some), (second, others) = in_two(judges, folder)
    assert first == second == expected
    assert some + others == 10
    assert some
    assert others
    assert not list(folder.glob(f"*{JUDGING}*"))


@pytest.mark.parametrize(("first", "then"), [(in_two, in_one), (in_one, in_two)])
def test_a_kill_costs_a_batch_and_any_number_of_processes_goes_on(folder, expected, first, then):
    rank = 1 if first is in_two else 0
    first(judges, folder, kill=Kill(rank, 3, f"{JUDGING}.1.part" if rank else JUDGING))
    kept = sum(file.read_bytes().count(b"\n") for file in [*folder.glob(f"*{JUDGING}"), *folder.glob(".*.part")])
    assert kept >= 2
    again = then(judges, folder)
    assert sum(count for _, count in again) in (10 - kept, 11 - kept)  # one of the eleven cannot be read
    assert all(judged == expected for judged, _ in again)


def test_what_was_judged_by_other_thresholds_or_of_other_pictures_is_judged_again(folder, expected):
    assert in_one(judges, folder, kill=Kill(0, 4, JUDGING)) == [None]
    Image.new("RGB", (40, 9)).save(folder / "00000" / "samples" / "0000.png")
    strict = replace(OFFICIAL, score=0.99)
    judged, count = in_one(judges, folder, strict)[0]
    assert count == 10
    assert not any(record["correct"] for record in judged.records)
