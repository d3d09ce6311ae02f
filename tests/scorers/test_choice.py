"""From what a command line says to scorers: names, weights, workers, and scorers of one's own."""

import pytest
from PIL import Image

from sipo.errors import UsageError
from sipo.scorers.choice import choose_scorers, named_values
from sipo.scorers.frames import FrameMean
from sipo.scorers.worker import WorkerScorer

MODULE = """
class Grey:
    name = "grey"
    def __init__(self, weights="none"):
        self.weights = weights
    def __call__(self, media, prompts, metadata=None):
        return [float(image.convert("L").getpixel((0, 0))) for image in media]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_scorers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def test_weights_come_with_the_name_or_apart():
    for choice in (
        choose_scorers(["pickscore=FOLDER", "clip"]),
        choose_scorers(["pickscore", "clip", "clip"], ["pickscore=FOLDER"]),
    ):
        assert choice.names == ("pickscore", "clip")
        assert choice.weights == {"pickscore": "FOLDER"}


def test_a_value_may_hold_an_equals_sign():
    assert named_values("--worker", ["a=run --x=1"]) == {"a": "run --x=1"}


def test_workers_follow_the_scorers():
    choice = choose_scorers(["miniature"], (), ["votes=run me"])
    assert choice.names == ("miniature", "votes")
    scorer = choice.load("votes")
    assert isinstance(scorer, WorkerScorer)
    assert scorer.command == "run me"


def test_a_class_of_a_module_scores_under_its_own_name(module):
    choice = choose_scorers(["my_scorers:Grey=FOLDER"], num_frames=2)
    assert (choice.names, choice.weights) == (("grey",), {"grey": "FOLDER"})
    (scorer,) = choice.load_all()
    assert isinstance(scorer, FrameMean)
    assert scorer.scorer.weights == "FOLDER"
    frames = [Image.new("RGB", (2, 2), (v, v, v)) for v in (0, 50, 100)]
    assert scorer([frames[1], frames], ["", ""]) == [50, 50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scorers": ["clip="]}, "--scorer: 'clip=' should be NAME or NAME=VALUE"),
        ({"scorers": ["=x"]}, "--scorer: '=x' should be"),
        ({"scorers": ["clip=a", "clip=b"]}, "each name once"),
        ({"scorers": ["clip"], "weights": ["clip"]}, "--weights: 'clip' should be NAME=VALUE"),
        ({"scorers": ["clip=a"], "weights": ["clip=b"]}, "--weights: clip has weights from --scorer"),
        ({"weights": ["clip=b"]}, "clip is not among the scorers named"),
        ({"scorers": ["clip"], "workers": ["clip=run"]}, "--worker: clip is a --scorer too"),
        ({"scorers": ["no_module:Scorer"]}, "no_module:Scorer cannot be imported"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UsageError, match=message):
        choose_scorers(**arguments)


def test_nothing_chosen():
    with pytest.raises(UsageError, match="name at least one"):
        choose_scorers().load_all()
