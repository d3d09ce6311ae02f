"""Two real processes score as one does: the same file of scores, whoever is killed and however many go on."""

import hashlib
import time
from pathlib import Path

import pytest
from PIL import Image
from support.folders import contents
from support.processes import Kill, in_one, in_two
from support.runs import QUIET

from sipo.evaluate.label.run import LabelRequest, label_folders
from sipo.evaluate.scores.files import read_scores
from sipo.evaluate.scores.score import score
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.scorers.choice import choose_scorers


class OfItsBatch:
    """A number that depends on all of a batch, as the rounding of a network's sums does."""

    name = "batch"

    def __init__(self, slow: float = 0.0):
        self.scored, self.slow = 0, slow

    def __call__(self, media, prompts, metadata=None):
        time.sleep(self.slow)
        self.scored += len(media)
        content = hashlib.sha256(b"".join(each.tobytes() for each in media)).digest()
        return [float(content[place]) for place in range(len(media))]


def scores(processes, folder):
    """How many media this process scored; the last one, which may be killed, is fast."""
    scorer = OfItsBatch(0.0 if processes.rank == processes.world - 1 else 0.2)
    found = score(folder, scorer, batch_size=2, processes=processes)
    assert [each.sample.file for each in found] == [f"{number:05d}.png" for number in range(11)]
    return scorer.scored


@pytest.fixture
def folder(tmp_path) -> Path:
    def grey(prompts, seeds):
        return [Image.new("RGB", (8, 8), (seed * 20, 9, 9)) for seed in seeds]

    items = [PromptItem(f"prompt {seed // 4}", seed) for seed in range(11)]
    return generate(grey, items, tmp_path / "media", {"model": "grey"})


@pytest.fixture
def expected(folder):
    """The files of one process, which are gone again; one of the pictures cannot be read."""
    (folder / "00004.png").write_bytes(b"no picture")
    scores_of_one = in_one(scores, folder)
    assert scores_of_one == [10]
    found = contents(folder)
    (folder / "scores.batch.jsonl").unlink()
    return found


def test_two_processes_write_the_scores_of_one(folder, expected):
    found = in_two(scores, folder)
    assert all(found)
    assert sum(found) == 10
    assert contents(folder) == expected
    assert in_two(scores, folder) == [0, 0]  # what cannot be read is tried again, alone
    assert contents(folder) == expected


@pytest.mark.parametrize(("first", "then"), [(in_two, in_one), (in_one, in_two)])
def test_a_kill_costs_a_batch_and_any_number_of_processes_goes_on(folder, expected, first, then):
    rank = 1 if first is in_two else 0
    first(scores, folder, kill=Kill(rank, 3, "scores.batch.jsonl.1.part" if rank else "scores.batch.jsonl"))
    files = [file for file in folder.iterdir() if "scores.batch" in file.name]
    kept = b"".join(file.read_bytes() for file in files)
    assert kept.count(b"\n") >= 2
    again = then(scores, folder)
    assert sum(again) == 10 - kept.count(b"\n") + kept.count(b"null")
    assert contents(folder) == expected


def labels(processes, folder, out):
    choice = choose_scorers(["support.scorers:Brightness"], batch_size=2)
    return label_folders(LabelRequest([folder], choice, out), QUIET, processes)


def test_the_first_of_two_processes_labels_what_both_have_scored(folder, tmp_path):
    (one,) = in_one(labels, folder, tmp_path / "pairs.jsonl")
    pairs = (tmp_path / "pairs.jsonl").read_bytes()
    values = [each.value for each in read_scores(folder, "brightness")]
    (folder / "scores.brightness.jsonl").unlink()
    (tmp_path / "pairs.jsonl").unlink()
    assert in_two(labels, folder, tmp_path / "pairs.jsonl") == [one, ""]
    assert (tmp_path / "pairs.jsonl").read_bytes() == pairs
    assert [each.value for each in read_scores(folder, "brightness")] == values
