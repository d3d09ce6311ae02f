"""Scorers that read the source of a sample: they are given each sample's own, and refuse samples without one."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from support.scorers import Brightness, Change

from sipo.data.media.encode_video import encode_video
from sipo.errors import UserError
from sipo.evaluate.label.run import LabelRequest, label_folders
from sipo.evaluate.scores.files import read_scores
from sipo.evaluate.scores.score import score
from sipo.evaluate.scores.sources import find_media
from sipo.jsonl import read_jsonl
from sipo.scorers.choice import choose_scorers, load_scorer

MADE, STARTED = [200, 120, 60], [100, 100, 100]  # grey levels of samples and of their sources


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (value,) * 3)


@pytest.fixture
def edits(tmp_path) -> Path:
    """Three samples of one prompt; sample n was made of tmp_path/source-n.png, which its folder records relative to itself."""
    folder = tmp_path / "media"
    folder.mkdir()
    lines = []
    for n, (made, started) in enumerate(zip(MADE, STARTED, strict=True)):
        grey(made).save(folder / f"{n}.png")
        grey(started + n).save(tmp_path / f"source-{n}.png")
        lines.append({"file": f"{n}.png", "prompt": "brighter", "seed": n, "source": f"../source-{n}.png"})
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def distance(n: int) -> float:
    return abs(MADE[n] - STARTED[n] - n) / 255


def values(scores) -> list[float]:
    return [each.value for each in scores]


def test_each_sample_is_scored_with_its_own_source(edits):
    expected = [pytest.approx(distance(n)) for n in range(3)]
    assert values(score(edits, load_scorer("support.scorers:Change"), batch_size=2)) == expected
    assert values(read_scores(edits, "change")) == expected


def test_a_changed_source_is_scored_again_by_those_alone_who_read_it(edits, tmp_path):
    before = [values(score(edits, scorer)) for scorer in (Change(), Brightness())]
    grey(0).save(tmp_path / "source-1.png")
    assert [each.error for each in read_scores(edits, "change")] == [None, "changed since it was scored", None]
    assert values(read_scores(edits, "brightness")) == before[1]
    assert values(score(edits, Change())) == [before[0][0], pytest.approx(MADE[1] / 255), before[0][2]]
    assert all("source_hash" not in line for line in read_jsonl(edits / "scores.brightness.jsonl"))


def test_one_source_that_cannot_be_read_costs_one_score(edits, tmp_path):
    (tmp_path / "source-1.png").write_bytes(b"no picture")
    found = score(edits, Change())
    assert [each.error is None for each in found] == [True, False, True]
    assert "the source " in found[1].error


def test_samples_without_a_source_are_refused(edits):
    lines = [{**line, "source": None} for line in read_jsonl(edits / "samples.jsonl")]
    (edits / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match=r"3 of 3 samples record no source, 0\.png first, and change judges"):
        score(edits, Change())
    assert not (edits / "scores.change.jsonl").exists()
    assert values(score(edits, Brightness())) == [pytest.approx(made / 255) for made in MADE]


def test_a_prompt_file_names_the_sources_of_a_folder_without_samples(edits, tmp_path):
    (edits / "samples.jsonl").unlink()
    lines = [{"file": f"{n}.png", "prompt": "brighter", "source": f"source-{n}.png"} for n in range(3)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (media,) = find_media(edits, str(tmp_path / "prompts.jsonl"))
    assert values(score(edits, Change(), samples=media.samples)) == [pytest.approx(distance(n)) for n in range(3)]
    plain = [{**line, "source": "a data set"} for line in lines]  # no file: it means something else
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    assert {sample.source for sample in find_media(edits, str(tmp_path / "prompts.jsonl"))[0].samples} == {None}


def test_all_frames_of_a_video_are_scored_with_its_source(edits):
    frames = [grey(value).resize((32, 32)) for value in (100, 140, 180)]
    (edits / "0.mp4").write_bytes(encode_video(frames, fps=8))
    line = {"file": "0.mp4", "prompt": "brighter", "seed": 0, "source": "../source-0.png"}
    (edits / "samples.jsonl").write_text(json.dumps(line) + "\n")
    (found,) = score(edits, load_scorer("support.scorers:Change"))
    assert found.value == pytest.approx((0 + 40 + 80) / 3 / 255, abs=0.02)


def test_a_scorer_of_files_is_given_paths(edits, tmp_path):
    class Files:
        name, batch_size, reads_sources = "files", 2, True

        def score_files(self, files, prompts, sources):
            return [
                {"score": Change()([Image.open(file)], [""], sources=[Image.open(source)])[0], "of": source.name}
                for file, source in zip(files, sources, strict=True)
            ]

    found = score(edits, Files())
    assert values(found) == [pytest.approx(distance(n)) for n in range(3)]
    assert [each.details["of"] for each in found] == [f"source-{n}.png" for n in range(3)]


def test_labels_by_such_a_scorer(edits, tmp_path):
    """Of two folders with the same sources those samples are chosen that changed more."""
    other = Path(shutil.copytree(edits, tmp_path / "other"))
    for n, made in enumerate([101, 250, 250]):
        grey(made).save(other / f"{n}.png")
    out = tmp_path / "pairs.jsonl"
    label_folders(LabelRequest([edits, other], choose_scorers(["support.scorers:Change"]), out), Console(quiet=True))
    assert [(line["chosen"], line["source"]) for line in read_jsonl(out)] == [
        ("media/0.png", "source-0.png"), ("other/1.png", "source-1.png"), ("other/2.png", "source-2.png"),
    ]  # fmt: skip
