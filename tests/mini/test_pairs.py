"""Pairs made by the miniature: the better picture is labelled so, whichever side it is on."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from rich.console import Console

from sipo.errors import UserError
from sipo.mini import pairs as pairs_module
from sipo.mini.pairs import SHIPPED, PairSettings, make_pairs
from sipo.mini.prompts import load_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.score import MiniatureScorer
from sipo.mini.wording import parse
from sipo.mini.world import render

QUIET = Console(quiet=True)


class Artist:
    """Draws each prompt right, blurred, and not at all, in turn; counts its calls."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, pipeline, prompts, seeds, *settings, **more):
        rng = np.random.default_rng(seeds[0])
        images = []
        for number, prompt in enumerate(prompts):
            image = render(sample_scene(parse(prompt), rng), rng)
            blurred, empty = image.filter(ImageFilter.GaussianBlur(5)), Image.new("RGB", (64, 64), (128, 130, 134))
            images.append([image, blurred, empty][number % 3])
        self.pictures += len(images)
        return images


@pytest.fixture
def artist(monkeypatch):
    artist = Artist()
    monkeypatch.setattr(pairs_module, "sample", artist)
    monkeypatch.setattr(pairs_module, "_fingerprint", lambda pipeline: "none")
    return artist


def sides(row):
    images = [Image.open(io.BytesIO(row[key])) for key in ("jpg_0", "jpg_1")]
    return images if row["label_0"] == 1 else images[::-1]


def test_the_chosen_is_right_and_the_rejected_is_wrong_or_less_clean(artist, tmp_path):
    number = make_pairs(tmp_path / "p.parquet", None, PairSettings(30, 3, only_right=False), chunk=10, console=QUIET)
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert number == len(rows) >= 29
    scorer = MiniatureScorer()
    for row in rows:
        chosen, rejected = scorer.details(sides(row), [row["caption"]] * 2)
        assert chosen["correct"]
        assert not rejected["correct"] or chosen["cleanliness"] > rejected["cleanliness"]
        assert row["score_gap"] == pytest.approx(chosen["score"] - rejected["score"])
        assert row["label_0"] + row["label_1"] == 1
    assert 5 < sum(row["label_0"] for row in rows) < 25  # both sides occur


@pytest.mark.parametrize(
    ("scores", "of_all", "of_right"),
    [
        ([1.5, 1.9, 0.3, 1.2], (1, 2), (1, 3)),
        ([1.5, 1.9, 1.2], (1, 2), (1, 2)),
        ([0.5, 1.9, 0.3], (1, 2), (1, 1)),  # one right: no gap, hence no pair
    ],
)
def test_which_pictures_are_contrasted(scores, of_all, of_right):
    details = [{"score": score, "correct": score > 1} for score in scores]
    group = list(range(len(scores)))
    assert pairs_module._contrast(group, details, only_right=False) == of_all
    assert pairs_module._contrast(group, details, only_right=True) == of_right


def test_without_a_right_picture_there_is_no_pair(artist, tmp_path, monkeypatch):
    monkeypatch.setattr(MiniatureScorer, "details", lambda self, images, *rest: [
        {"score": k / len(images), "correct": False} for k in range(len(images))
    ])  # fmt: skip
    for only_right in (True, False):
        settings = PairSettings(num_prompts=4, candidates=3, only_right=only_right)
        assert make_pairs(tmp_path / f"{only_right}.parquet", None, settings, console=QUIET) == 0


def test_goes_on_after_a_stop_and_refuses_other_settings(artist, tmp_path):
    out, settings = tmp_path / "p.parquet", PairSettings(20, 3, only_right=False)
    make_pairs(out, None, settings, chunk=10, console=QUIET)
    whole = pq.read_table(out)
    (tmp_path / "p.parquet.parts" / "000010-010.parquet").unlink()
    make_pairs(out, None, settings, chunk=10, console=QUIET)
    assert artist.pictures == 3 * (20 + 10)
    assert pq.read_table(out).equals(whole)
    with pytest.raises(UserError, match="other settings"):
        make_pairs(out, None, PairSettings(20, 3, margin=0.2, only_right=False), chunk=10, console=QUIET)


def test_ties_are_dropped(artist, tmp_path):
    assert (
        make_pairs(tmp_path / "p.parquet", None, PairSettings(8, 3, margin=2.1, only_right=False), console=QUIET) == 0
    )


def test_of_the_right_ones_alone(artist, tmp_path):
    """The artist draws a prompt right, blurred and not at all: where the blurred one is right too, it is the worst."""
    make_pairs(tmp_path / "p.parquet", None, PairSettings(30, 6), chunk=10, console=QUIET)
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(rows) > 10
    for row in rows:
        chosen, rejected = MiniatureScorer().details(sides(row), [row["caption"]] * 2)
        assert chosen["correct"]
        assert rejected["correct"]
        assert chosen["cleanliness"] >= rejected["cleanliness"] + PairSettings().margin - 1e-9


def test_the_shipped_pairs():
    """Pick-a-Pic's columns, train prompts alone, sides in balance, and a sample of them ranked as the score does."""
    rows = pq.read_table(SHIPPED).to_pylist()
    assert 500 <= len(rows) <= 2500
    assert {row["caption"] for row in rows} <= {prompt["prompt"] for prompt in load_prompts("train")}
    assert {row["label_0"] for row in rows} == {0.0, 1.0}
    assert 0.45 < np.mean([row["label_0"] for row in rows]) < 0.55
    assert all(row["has_label"] and row["jpg_0"] != row["jpg_1"] for row in rows)
    for row in rows[:: len(rows) // 40]:
        chosen, rejected = MiniatureScorer().details(sides(row), [row["caption"]] * 2)
        assert chosen["correct"]
        assert rejected["correct"]
        assert chosen["score"] >= rejected["score"] + PairSettings().margin - 1e-9
