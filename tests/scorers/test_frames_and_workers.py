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
from sipo.scorers.worker import WorkerScorer

WORKER = """
import argparse, json, time
parser = argparse.ArgumentParser()
for name in ("--requests", "--scores", "--mode"):
    parser.add_argument(name)
a = parser.parse_args()
rows = [json.loads(line) for line in open(a.requests)]
if a.mode == "die":
    print("out of memory"); raise SystemExit(3)
if a.mode == "silent":
    raise SystemExit
if a.mode == "hang":
    print("loading", flush=True); print("waiting for the GPU", flush=True); time.sleep(600)
whole = {"html": "<html><body>502 Bad Gateway</body></html>\\n", "nested": "[" * 100_000 + "\\n", "list": "[1, 2, 3]\\n",
         "own input": open(a.requests).read(), "no id": '{"score": 1}\\n', "a list as id": '{"id": [0], "score": 1}\\n'}
with open(a.scores, "w") as out:
    if a.mode in whole:
        out.write(whole[a.mode]); raise SystemExit
    if a.mode == "huge":
        out.truncate(2**40); raise SystemExit
    for row in reversed(rows[1:] if a.mode == "short" else rows):
        size = len(open(row["file"], "rb").read())
        line = {"id": row["id"], "error": "empty"} if not size else {"id": row["id"], "score": size, "words": len(row["prompt"].split())}
        if a.mode in ("words", "true", "nan", "text", "infinite", "enormous"):
            line["score"] = {"words": "good", "true": True, "nan": float("nan"), "text": "3", "infinite": float("inf"),
                             "enormous": 10**400}[a.mode]
        if a.mode == "nan beside":
            line["words"] = float("nan")
        if a.mode == "one wrong" and row["id"] == 1:
            line["score"] = None
        if a.mode == "with request":
            line = {**row, **line, "hash": "0", "scorer": "x"}
        out.write(json.dumps(line) + "\\n")
        if a.mode == "dies later":
            print("CUDA out of memory"); raise SystemExit(1)
        if a.mode == "hangs later":
            out.flush(); print("second video", flush=True); time.sleep(600)
    if a.mode == "twice":
        out.write(json.dumps(line) + "\\n")
    if a.mode == "too many":
        out.write(json.dumps({"id": len(rows), "score": 1}) + "\\n")
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "worker with spaces.py"
    script.write_text(WORKER)
    return lambda mode="ok", **settings: WorkerScorer(
        "sizes", f"{sys.executable} '{script}' --mode '{mode}'", **settings
    )


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
        ("silent", "succeeded\nit gave no answer"),
        ("html", "line 1 of its answers is not JSON .*: <html><body>502 Bad Gateway"),
        ("nested", r"line 1 of its answers is nested too deeply: \[\[\["),
        ("huge", "scores.jsonl has 1,099,511,627,776 bytes; at most"),
        ("list", r"line 1 of its answers is no JSON object: \[1, 2, 3\]"),
        ("own input", 'line 1 of its answers is without a finite number under score: {"id": 0, "file": '),
        ("no id", 'line 1 of its answers is without a number under id: {"score": 1}'),
        ("a list as id", "without a number under id"),
        *((mode, "without a finite number under score") for mode in ("words", "true", "nan", "text", "infinite", "enormous")),
        ("nan beside", r"is no JSON \(.*\): .*NaN"),
        ("twice", "two answers for the id 0; there were 3 requests"),
        ("too many", "an answer for the id 3; there were 3 requests, with ids from 0 to 2"),
    ],
)  # fmt: skip
def test_a_worker_that_misbehaves_is_named(worker, files, mode, said):
    with pytest.raises(UserError, match=f"(?s)worker sizes: .*{said}"):
        worker(mode).score_files([files[0], files[0], files[2]], ["a", "b", "c"])


def test_a_worker_that_neither_prints_nor_answers_is_ended_with_its_last_line(worker, files):
    with pytest.raises(UserError, match=r"neither output nor an answer for 3 seconds:\nwaiting for the GPU\n"):
        worker("hang", patience=3).score_files([files[0]], ["a"])
    assert "patience" not in worker().settings


@pytest.mark.parametrize(
    ("mode", "answered", "reason"),
    [
        ("short", [1, 2], "it gave no answer for this file"),
        ("one wrong", [0, 2], "line 2 of its answers is without a finite number under score"),
        ("dies later", [2], "the worker failed with 1:\nCUDA out of memory"),
        ("hangs later", [2], "neither output nor an answer for 3 seconds:\nsecond video"),
    ],
)
def test_what_a_worker_has_answered_is_kept(worker, files, mode, answered, reason):
    found = worker(mode, patience=3).score_files([files[0], files[0], files[2]], ["a", "b", "c"])
    assert [i for i, answer in enumerate(found) if "score" in answer] == answered
    assert all(reason in answer["error"] for answer in found if "score" not in answer)


def test_what_an_answer_repeats_of_its_request_is_no_detail(worker, files):
    assert worker("with request").score_files([files[0]], ["a b"]) == [{"score": 3, "words": 2}]


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
    (repo / "inference.py").write_text(REPOSITORY)
    scorer = WorkerScorer("official", f"{sys.executable} @videoreward --repo '{repo}' --checkpoint '{checkpoint}'")
    found = scorer.score_files(files, ["abc", "", "x"])
    assert found[0] == {"score": 6.5, "VQ": 3, "MQ": 0.5, "TA": 3}
    assert found[1] == {"error": "ValueError: no frames"}
    assert json.dumps(scorer.settings)
