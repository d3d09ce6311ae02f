"""Pairs made by the miniature: the better picture is labelled so, whichever side it is on."""

import contextlib
import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from rich.console import Console
from support.processes import in_two

from sipo.data.media.decode_video import read_frames
from sipo.data.media.kinds import media_kind
from sipo.data.media.pictures import decode
from sipo.errors import UsageError, UserError
from sipo.mini import MINIATURES
from sipo.mini.kinds import KINDS
from sipo.mini.pairs import PairSettings, make_pairs, pairs_of_model
from sipo.mini.prompts import split_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.score import MiniatureScorer
from sipo.mini.wording import parse
from sipo.mini.world import render
from sipo.registry import import_object
from sipo.samples.metadata import CATEGORIES

QUIET = Console(quiet=True)
MADE_BY = {"model": "an artist"}


class Artist:
    """Draws each prompt right, blurred, and not at all, in turn; counts its calls."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, prompts, seeds):
        rng = np.random.default_rng(seeds[0])
        images = []
        for number, prompt in enumerate(prompts):
            image = render(sample_scene(parse(prompt), rng), rng)
            blurred, empty = image.filter(ImageFilter.GaussianBlur(2)), Image.new("RGB", (64, 64), (128, 130, 134))
            images.append([image, blurred, empty][(seeds[0] + number) % 3])
        self.pictures += len(images)
        return images


@pytest.fixture
def artist():
    return Artist()


def sides(row):
    images = [Image.open(io.BytesIO(row[key])) for key in ("jpg_0", "jpg_1")]
    return images if row["label_0"] == 1 else images[::-1]


def test_the_chosen_is_right_and_the_rejected_is_wrong_or_less_clean(artist, tmp_path):
    number = make_pairs(tmp_path / "p.parquet", artist, MADE_BY, PairSettings(30, 3, contrast="any"))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert number == len(rows) >= 29
    assert all(row["seed_0"] != row["seed_1"] and json.loads(row["sampler_0"]) == MADE_BY for row in rows)
    scorer = MiniatureScorer()
    for row in rows:
        chosen, rejected = scorer.details(sides(row), [row["caption"]] * 2)
        assert chosen["correct"]
        assert not rejected["correct"] or chosen["cleanliness"] > rejected["cleanliness"]
        assert row["score_gap"] == pytest.approx(chosen["score"] - rejected["score"])
        assert row["label_0"] + row["label_1"] == 1
    assert 5 < sum(row["label_0"] for row in rows) < 25  # both sides occur


@pytest.mark.parametrize(
    ("scores", "contrast", "pairs"),
    [
        ([1.5, 1.9, 0.3, 1.2], "any", [(1.9, 0.3)]),
        ([1.5, 1.9, 0.3, 1.2], "right", [(1.9, 1.2)]),
        ([1.5, 1.9, 0.3, 1.2], "both", [(1.9, 0.3), (1.9, 1.2)]),
        ([1.5, 1.9, 1.2], "right", [(1.9, 1.2)]),
        ([1.5, 1.9, 1.2], "both", [(1.9, 1.2)]),  # once
        ([0.5, 1.9, 0.3], "both", [(1.9, 0.3)]),
        ([0.5, 1.9, 0.3], "right", []),  # one right: no gap, hence no pair
        ([0.5, 0.9, 0.3], "both", []),  # none right
    ],
)
def test_which_pictures_are_contrasted(artist, tmp_path, monkeypatch, scores, contrast, pairs):
    details = [{"score": score, "correct": score > 1} for score in scores]
    monkeypatch.setattr(MiniatureScorer, "details", lambda self, images, *rest: details)
    settings, out = PairSettings(1, len(scores), contrast=contrast), tmp_path / "p.parquet"
    if not pairs:
        with pytest.raises(UserError, match="There is no pair to write"):
            make_pairs(out, artist, MADE_BY, settings)
        return
    assert make_pairs(out, artist, MADE_BY, settings) == len(pairs)
    found = [row["score_gap"] for row in pq.read_table(out).to_pylist()]
    assert found == [pytest.approx(better - worse) for better, worse in pairs]


def test_resumes_after_a_stop_and_refuses_other_weights(artist, tmp_path):
    out, settings = tmp_path / "p.parquet", PairSettings(20, 3, contrast="any")
    make_pairs(out, artist, MADE_BY, settings)
    whole = pq.read_table(out)
    lines = (tmp_path / "p.parquet.samples" / "samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "p.parquet.samples" / "samples.jsonl").write_text("".join(lines[:32]))
    make_pairs(out, artist, MADE_BY, settings)
    assert artist.pictures == 60 + 28
    assert pq.read_table(out).equals(whole)
    with pytest.raises(UserError, match="other settings"):
        make_pairs(out, artist, MADE_BY | {"weights": "others"}, settings)


def test_more_prompts_and_another_margin_keep_what_is_drawn(artist, tmp_path):
    out = tmp_path / "p.parquet"
    few = make_pairs(out, artist, MADE_BY, PairSettings(8, 3, contrast="any"))
    more = make_pairs(out, artist, MADE_BY, PairSettings(12, 3, contrast="any"))
    assert artist.pictures == 3 * 12
    assert make_pairs(out, artist, MADE_BY, PairSettings(12, 3, margin=0.9, contrast="any")) <= more
    assert few < more
    assert artist.pictures == 3 * 12
    with pytest.raises(UserError, match="all were ties"):
        make_pairs(out, artist, MADE_BY, PairSettings(12, 3, margin=2.1, contrast="any"))


def test_a_prompt_that_is_drawn_again_makes_a_pair_of_its_own(artist, tmp_path):
    """1,400 draws of 1,140 prompts: two of the five single objects are held out, so that their three prompts repeat."""
    out = tmp_path / "p.parquet"
    make_pairs(out, artist, MADE_BY, PairSettings(100, 3, contrast="any"))
    captions = [row["caption"] for row in pq.read_table(out).to_pylist()]
    assert len(captions) > len(set(captions))


def test_pairs_are_made_for_all_categories_alike(artist, tmp_path):
    make_pairs(tmp_path / "p.parquet", artist, MADE_BY, PairSettings(36, 3, contrast="any"))
    captions = [row["caption"] for row in pq.read_table(tmp_path / "p.parquet").to_pylist()]
    assert Counter(parse(caption)["tag"] for caption in captions) == dict.fromkeys(CATEGORIES, 6)


def test_the_miniature_itself_makes_pairs(tmp_path):
    out, settings = tmp_path / "p.parquet", PairSettings(1, 2, margin=1e-6, contrast="any")
    with contextlib.suppress(UserError):  # where neither picture of the prompt is right
        pairs_of_model(out, "miniature", settings, True, QUIET)
    settings = json.loads((tmp_path / "p.parquet.samples" / "settings.json").read_text())
    assert (settings["num_inference_steps"], settings["guidance_scale"], settings["autocast"]) == (20, 4.0, True)
    assert len(settings["weights"]) == 12


def test_another_ending_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(UsageError, match=r"--out: .*p\.csv should end in \.parquet"):
        pairs_of_model(tmp_path / "p.csv", "miniature", PairSettings(), True, QUIET)
    assert not list(tmp_path.iterdir())


def test_of_the_right_ones_alone(artist, tmp_path):
    """The artist draws a prompt right, blurred and not at all: where the blurred one is right too, it is the worst."""
    make_pairs(tmp_path / "p.parquet", artist, MADE_BY, PairSettings(30, 6, contrast="right"))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(rows) > 10
    for row in rows:
        chosen, rejected = MiniatureScorer().details(sides(row), [row["caption"]] * 2)
        assert chosen["correct"]
        assert rejected["correct"]
        assert chosen["cleanliness"] >= rejected["cleanliness"] + PairSettings().margin - 1e-9


def pairs_in(processes, out):
    return make_pairs(out, Artist(), MADE_BY, PairSettings(30, 6), processes=processes)


def test_two_processes_make_the_pairs_of_one(artist, tmp_path):
    first, second = in_two(pairs_in, tmp_path / "two.parquet")
    assert first == second == make_pairs(tmp_path / "one.parquet", artist, MADE_BY, PairSettings(30, 6))
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


@pytest.mark.parametrize("name", MINIATURES)
def test_the_shipped_pairs(name):
    """Pick-a-Pic's columns, no held-out prompt, all categories, sides in balance, a sample of them ranked as the score does."""
    kind, shipped = KINDS[name], MINIATURES[name]
    tags = {prompt["prompt"]: tag for tag, group in kind_prompts(kind).items() for prompt in group}
    scorer = import_object(shipped.scorer)()
    rows = pq.read_table(shipped.pairs).to_pylist()
    assert 500 <= len(rows) <= 2500
    counts = Counter(tags[row["caption"]] for row in rows)  # every one is a prompt that is not held out
    assert set(counts) == set(shipped.categories)
    assert min(counts.values()) >= len(rows) / 20
    assert {row["label_0"] for row in rows} == {0.0, 1.0}
    assert 0.45 < np.mean([row["label_0"] for row in rows]) < 0.55
    assert all(row["has_label"] and row["jpg_0"] != row["jpg_1"] for row in rows)
    wrong = 0
    for row in rows[:: len(rows) // 40]:
        chosen, rejected = scorer.details(media(row), [row["caption"]] * 2)
        assert chosen["correct"]
        assert chosen["score"] >= rejected["score"] + PairSettings().margin - 1e-9
        wrong += not rejected["correct"]
    assert 20 <= wrong <= 35  # of both contrasts


def kind_prompts(kind):
    return split_prompts(kind.prompts(), kind.held_out)[0]


def media(row):
    """The chosen and the rejected picture or clip of a row."""
    files = row["jpg_0"], row["jpg_1"]
    found = [
        decode(file) if media_kind(file) == "image" else [frame.picture() for frame in read_frames(file)]
        for file in files
    ]
    return found if row["label_0"] == 1 else found[::-1]


def test_compressed_pairs_are_ranked_as_they_are_read(artist, tmp_path):
    plain, jpeg = PairSettings(30, 6), PairSettings(30, 6, jpeg_quality=40)
    sizes = {}
    for settings in (plain, jpeg):
        number = make_pairs(tmp_path / "p.parquet", artist, MADE_BY, settings)
        rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
        assert number == len(rows)
        for row in rows:
            chosen, rejected = MiniatureScorer().details(sides(row), [row["caption"]] * 2)
            assert chosen["correct"]
            assert chosen["score"] >= rejected["score"] + PairSettings().margin - 1e-9
        sizes[settings.jpeg_quality] = number
        assert {Image.open(io.BytesIO(row["jpg_0"])).format for row in rows} == {
            "JPEG" if settings.jpeg_quality else "PNG"
        }
    assert 0 < sizes[40] < sizes[None]  # some do not survive so low a quality
