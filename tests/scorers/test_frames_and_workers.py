"""Videos by the scorers of pictures, and scorers that live in another environment."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sipo.errors import UsageError, UserError
from sipo.scorers.base import ConfiguredScorer, FileScorer, VideoScorer
from sipo.scorers.frames import FrameMean, evenly_spaced
from sipo.scorers.pickscore import PickScore
from sipo.scorers.video_reward import video_reward
from sipo.scorers.worker import WorkerScorer

WORKER = """
import argparse, json
parser = argparse.ArgumentParser()
for name in ("--requests", "--scores", "--mode"):
    parser.add_argument(name)
a = parser.parse_args()
rows = [json.loads(line) for line in open(a.requests)]
if a.mode == "die":
    print("out of memory"); raise SystemExit(3)
if a.mode == "silent":
    raise SystemExit
with open(a.scores, "w") as out:
    for row in reversed(rows[1:] if a.mode == "short" else rows):
        size = len(open(row["file"], "rb").read())
        line = {"id": row["id"], "error": "empty"} if not size else {"id": row["id"], "score": size, "words": len(row["prompt"].split())}
        if a.mode == "words":
            line["score"] = "good"
        out.write(json.dumps(line) + "\\n")
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "worker with spaces.py"
    script.write_text(WORKER)
    return lambda mode="ok": WorkerScorer("sizes", f"{sys.executable} '{script}' --mode {mode}")


@pytest.fixture
def files(tmp_path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4")]
    for path, content in zip(paths, (b"xxx", b"", b"x"), strict=True):
        path.write_bytes(content)
    return paths


def test_a_video_gets_the_mean_of_its_frames(clip_folder, pictures):
    scorer = PickScore(str(clip_folder), device="cpu", batch_size=3)
    video = [pictures[i % 4].rotate(10 * i) for i in range(9)]
    mean = FrameMean(scorer, 3)
    expected = sum(scorer([video[i] for i in (0, 4, 8)], ["a dog"] * 3)) / 3
    single = scorer([pictures[0]], ["sky"])[0]
    found = mean([video, pictures[0]], ["a dog", "sky"])
    torch.testing.assert_close(torch.tensor(found), torch.tensor([expected, single]), rtol=1e-5, atol=1e-5)
    assert mean.name == "pickscore"
    assert isinstance(mean, VideoScorer)
    assert not isinstance(scorer, VideoScorer)
    assert mean.settings == {**scorer.settings, "num_frames": 3}


def test_metadata_go_along_with_the_frames():
    class Notes:
        name = "notes"

        def __call__(self, media, prompts, metadata=None):
            self.seen = list(zip(prompts, metadata or [], strict=False))
            return [0.0] * len(media)

    notes, frame = Notes(), Image.new("RGB", (4, 4))
    assert FrameMean(notes, 2)([[frame] * 5, frame], ["a", "b"], [{"n": 1}, {"n": 2}]) == [0.0, 0.0]
    assert notes.seen == [("a", {"n": 1})] * 2 + [("b", {"n": 2})]
    assert not isinstance(notes, ConfiguredScorer)
    assert FrameMean(notes, 2).settings == {"num_frames": 2}


def test_frames_are_evenly_spaced():
    assert evenly_spaced(9, 3) == [0, 4, 8]
    assert evenly_spaced(49, 8) == [0, 7, 14, 21, 27, 34, 41, 48]
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(9, 1) == [4]
    for count in range(1, 30):
        for wanted in range(2, 12):
            places = evenly_spaced(count, wanted)
            assert (places[0], places[-1], len(set(places))) == (0, count - 1, min(count, wanted))
    with pytest.raises(UsageError, match="at least 1"):
        FrameMean(None, 0)


def test_a_worker_answers_in_any_order_and_names_what_it_cannot_read(worker, files):
    scorer = worker()
    assert isinstance(scorer, FileScorer)
    found = scorer.score_files(files, ["a b", "c", "d"])
    assert found == [{"score": 3, "words": 2}, {"error": "empty"}, {"score": 1, "words": 1}]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("die", r"failed with 3:\nout of memory"),
        ("silent", "wrote no scores"),
        ("short", "3 requests, with ids from 0 to 2, and 2 lines of answers"),
        ("words", "expected a finite number under score"),
    ],
)
def test_a_worker_that_misbehaves_is_named(worker, files, mode, said):
    with pytest.raises(UserError, match=said):
        worker(mode).score_files([files[0], files[0], files[2]], ["a", "b", "c"])


def test_commands_are_checked_when_they_are_given():
    for name, command, said in [
        ("a/b", "x", "letters, digits"),
        ("a", "'", "does not parse"),
        ("a", " ", "is empty"),
        ("a", "python @nothing", "it has @videoreward"),
    ]:
        with pytest.raises(UsageError, match=said):
            WorkerScorer(name, command)
    with pytest.raises(UserError, match="cannot be run"):
        WorkerScorer("a", "/no/such/program").score_files([], [])


REPOSITORY = """
class VideoVLMRewardInference:
    def __init__(self, checkpoint, device, dtype):
        self.checkpoint = checkpoint

    def reward(self, files, prompts, use_norm):
        content = open(files[0], "rb").read()
        if not content:
            raise ValueError("no frames")
        return [{"VQ": len(content), "MQ": 0.5, "TA": len(prompts[0]), "Overall": len(content) + 0.5 + len(prompts[0])}]
"""


def test_the_bundled_videoreward_worker_speaks_the_protocol(tmp_path, files):
    """With VideoAlign's class replaced by one of the same signature; its own weights are not tested."""
    repo, checkpoint = tmp_path / "VideoAlign", tmp_path / "ckpt"
    repo.mkdir()
    checkpoint.mkdir()
    with pytest.raises(UserError, match=r"holds no inference\.py"):
        video_reward(repo, checkpoint)
    (repo / "inference.py").write_text(REPOSITORY)
    (checkpoint / "model_config.json").write_text("{}")
    scorer = video_reward(repo, checkpoint, python=sys.executable)
    found = scorer.score_files(files, ["abc", "", "x"])
    assert found[0] == {"score": 6.5, "VQ": 3, "MQ": 0.5, "TA": 3}
    assert found[1] == {"error": "ValueError: no frames"}
    assert json.dumps(scorer.settings)
