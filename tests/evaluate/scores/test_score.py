import math

import pytest
from PIL import Image
from support.synthetic_run import ColourScorer, draw, prompt_items, sampler

from sipo.errors import UserError
from sipo.evaluate.scores.files import read_scores
from sipo.evaluate.scores.score import score
from sipo.jsonl import read_jsonl
from sipo.samples.generate import generate


class Brightness:
    """Mean brightness; counts the pictures it is shown."""

    name = "brightness"

    def __init__(self):
        self.seen = 0

    def __call__(self, images, prompts, metadata=None):
        self.seen += len(images)
        return [sum(image.convert("L").resize((1, 1)).getdata()) / 255 for image in images]


@pytest.fixture
def folder(tmp_path):
    return generate(sampler(5, 0.0), prompt_items(6), tmp_path / "media", {"model": "m"})


def test_scores_come_in_the_order_of_the_samples_and_into_a_file(folder):
    scores = score(folder, Brightness(), batch_size=4)
    images = [Image.open(folder / s.sample.file) for s in scores]
    assert [s.value for s in scores] == Brightness()(images, [])
    assert [r["file"] for r in read_jsonl(folder / "scores.brightness.jsonl")] == [f"{i:05d}.png" for i in range(6)]
    assert [s.value for s in read_scores(folder, "brightness")] == [s.value for s in scores]


def test_only_new_and_changed_pictures_are_scored_again(folder):
    score(folder, Brightness())
    draw("red", "circle", 999, 0.0).save(folder / "00002.png")
    stale = read_scores(folder, "brightness")
    assert math.isnan(stale[2].value)
    assert stale[2].error == "changed since it was scored"
    again = Brightness()
    scores = score(folder, again)
    assert again.seen == 1
    assert scores[2].value != pytest.approx(stale[1].value)
    assert len(read_jsonl(folder / "scores.brightness.jsonl")) == 6


def test_another_prompt_for_the_same_picture_is_scored_again(folder):
    score(folder, Brightness())
    lines = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(lines.replace("number 3", "number three"))
    again = Brightness()
    score(folder, again)
    assert again.seen == 1


def test_a_killed_scoring_goes_on(folder):
    class Dying(Brightness):
        def __call__(self, images, prompts, metadata=None):
            if self.seen >= 4:
                raise RuntimeError("killed")
            return super().__call__(images, prompts, metadata)

    with pytest.raises(RuntimeError, match="killed"):
        score(folder, Dying(), batch_size=2)
    path = folder / "scores.brightness.jsonl"
    path.write_bytes(path.read_bytes()[:-10])  # and half a last line
    again = Brightness()
    assert all(s.error is None for s in score(folder, again, batch_size=2))
    assert again.seen == 3


def test_an_unreadable_picture_is_named_and_stops_nothing(folder):
    (folder / "00001.png").write_bytes((folder / "00001.png").read_bytes()[:200])
    (folder / "00004.png").unlink()
    (folder / "00005.png").write_bytes(b"no picture")
    scores = score(folder, Brightness())
    failed = {s.sample.file: s.error for s in scores if s.error}
    assert set(failed) == {"00001.png", "00004.png", "00005.png"}
    assert all(math.isnan(s.value) == (s.sample.file in failed) for s in scores)
    again = Brightness()
    score(folder, again)
    assert again.seen == 0  # tried again, but there was nothing to show


def test_details_are_kept(folder):
    scores = score(folder, ColourScorer())
    assert all(s.details["correct"] is True for s in scores)
    assert {"correct", "cleanliness", "reasons"} == set(read_scores(folder, "colour")[0].details)


def test_a_scorer_that_returns_nonsense_is_caught(folder):
    class Short(Brightness):
        def __call__(self, images, prompts, metadata=None):
            return [0.0]

    class Nan(Brightness):
        def __call__(self, images, prompts, metadata=None):
            return [math.nan] * len(images)

    class Words(Brightness):
        def __call__(self, images, prompts, metadata=None):
            return ["good"] * len(images)

    class NanBeside(ColourScorer):
        def details(self, images, prompts, metadata=None):
            return [{"score": 1.0, "sharpness": math.nan}] * len(images)

    class Nothing(ColourScorer):
        def details(self, images, prompts, metadata=None):
            return [{"correct": True}] * len(images)

    with pytest.raises(UserError, match="given 6 media and returned 1"):
        score(folder, Short())
    for scorer in (Words(), NanBeside(), Nothing()):
        with pytest.raises(UserError, match=r"returned .* for 00000\.png; expected a finite number as score"):
            score(folder, scorer)
    with pytest.raises(UserError, match=r"returned nan for 00000\.png"):
        score(folder, Nan())


def test_folders_without_samples_or_scores_are_named(tmp_path, folder):
    with pytest.raises(UserError, match="not a folder of generated media"):
        score(tmp_path, Brightness())
    with pytest.raises(UserError, match="no scores by 'brightness'"):
        read_scores(folder, "brightness")


def test_videos_are_refused_by_scorers_of_pictures(tmp_path):
    frames = [draw("red", "circle", seed, 5.0) for seed in range(3)]
    out = generate(lambda prompts, seeds: [frames for _ in prompts], prompt_items(2), tmp_path / "v", {"fps": 8})
    with pytest.raises(UserError, match="holds videos, and the scorer 'brightness' takes pictures"):
        score(out, Brightness())
