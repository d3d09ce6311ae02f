import json
import math
from types import SimpleNamespace

import pytest
from PIL import Image

from sipo.errors import UserError
from sipo.evaluate.scores.files import read_score_file, recorded_settings, scorer_of, scores_path
from sipo.evaluate.scores.score import score, scores_with
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


class Grey:
    name = "grey"

    @property
    def settings(self):
        return {"weights": "w"}

    def __call__(self, images, prompts, metadata=None):
        return [float(image.convert("L").getpixel((0, 0))) for image in images]


class Darker(Grey):
    @property
    def settings(self):
        return {"weights": "other"}

    def __call__(self, images, prompts, metadata=None):
        return [-value for value in super().__call__(images, prompts, metadata)]


@pytest.fixture
def folder(tmp_path):
    grey = lambda prompts, seeds: [Image.new("RGB", (8, 8), (seed,) * 3) for seed in seeds]  # noqa: E731
    out = generate(grey, [PromptItem("x", 10, {"tag": "t"}), PromptItem("y", 20)], tmp_path / "media", {"model": "m"})
    score(out, Grey())
    return out


def test_the_scorer_is_in_the_files_name(tmp_path):
    names = ("scores.hpsv2.1.jsonl", "votes.jsonl", "scores.jsonl")
    assert [scorer_of(tmp_path / name) for name in names] == ["hpsv2.1", "score", "score"]


def test_a_file_beside_its_media_takes_prompts_and_seeds_from_them(folder):
    found = read_score_file(scores_path(folder, "grey"))
    assert [(s.sample.prompt, s.sample.seed, s.sample.metadata, s.value) for s in found] == [
        ("x", 10, {"tag": "t"}, 10.0), ("y", 20, None, 20.0)
    ]  # fmt: skip


def test_a_file_of_its_own_says_prompts_and_perhaps_seeds(tmp_path):
    path = lines(
        tmp_path / "votes.jsonl", {"prompt": "x", "score": 1}, {"prompt": "y", "score": 2, "seed": 7, "file": "y.mp4"},
        {"prompt": "x", "score": None, "error": "too dark"}, {"prompt": "x", "score": 3, "metadata": {"tag": "t"}, "MQ": 0.5},
    )  # fmt: skip
    found = read_score_file(path)
    assert [(s.sample.prompt, s.sample.seed) for s in found] == [("x", 0), ("y", 7), ("x", 1), ("x", 2)]
    assert (found[1].sample.file, found[1].value) == ("y.mp4", 2.0)
    assert math.isnan(found[2].value)
    assert found[2].error == "too dark"
    assert (found[3].details, found[3].sample.metadata) == ({"MQ": 0.5}, {"tag": "t"})


@pytest.mark.parametrize(
    "record",
    [{"score": 1}, {"prompt": "x"}, {"prompt": "x", "score": "high"}, {"prompt": 3, "score": 1}, {"prompt": "x", "score": True},
     {"prompt": "x", "score": 1, "seed": "one"}, {"prompt": "x", "score": 1, "metadata": "tag"}],
)  # fmt: skip
def test_mistakes_name_the_line(tmp_path, record):
    path = lines(tmp_path / "votes.jsonl", {"prompt": "x", "score": 1}, record)
    with pytest.raises(UserError, match=r"votes\.jsonl, line 2: expected a text under"):
        read_score_file(path)


def test_settings_of_the_scorer_are_read_back(folder, tmp_path):
    assert recorded_settings(scores_path(folder, "grey")) == [{"weights": "w"}]
    assert recorded_settings(tmp_path / "absent.jsonl") == []


def test_existing_scores_are_used_until_a_picture_changes(folder):
    loaded = []
    choice = SimpleNamespace(
        is_explicit=lambda name: False, batch_size=4, load=lambda name: loaded.append(name) or Grey()
    )
    scores = scores_with(choice, None)
    assert [s.value for s in scores(folder, "grey")] == [10, 20]
    assert loaded == []
    Image.new("RGB", (8, 8)).save(folder / "00001.png")
    assert [s.value for s in scores(folder, "grey")] == [10, 0]
    scores(folder, "other")
    assert loaded == ["grey", "other"]


def test_weights_that_are_named_score_again(folder):
    choice = SimpleNamespace(is_explicit=lambda name: True, batch_size=4, load=lambda name: Darker())
    assert [s.value for s in scores_with(choice, None)(folder, "grey")] == [-10, -20]
