"""GenEval's metadata: read as it stands, refused by number where it cannot be judged, wherever it is read."""

import pytest
from PIL import Image
from support.geneval import BESIDE, CAT, DOGS, write_lines

from sipo.errors import UserError
from sipo.evaluate.scores.sources import find_media
from sipo.geneval.layout import read_gallery
from sipo.mini.score import MiniatureScorer
from sipo.samples import metadata


def test_metadata_is_read_as_it_stands(tmp_path):
    assert metadata.read_metadata(write_lines(tmp_path / "m.jsonl", [CAT, DOGS, BESIDE])) == [CAT, DOGS, BESIDE]


def test_the_packaged_list_has_all_six_categories():
    entries = metadata.read_metadata("miniature")
    assert {entry["tag"] for entry in entries} == set(metadata.CATEGORIES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tag": "style"}, "prompt 2: `tag` is 'style', none of single_object"),
        ({"tag": None}, "`tag` is None"),
        ({"include": []}, "`include` names no object"),
        ({"include": {"class": "cat"}}, "`include` names no object"),
        ({"exclude": None}, "`exclude` is not a list"),
        ({"include": [{"count": 1}]}, "clause 0 names no `class`"),
        ({"include": ["cat"]}, "clause 0 names no `class`"),
        ({"include": [{"class": "cat", "count": 0}]}, "clause 0 has no whole number above 0"),
        ({"exclude": [{"class": "cat", "count": "3"}]}, "clause 0 has no whole number above 0"),
        ({"include": [{"class": "cat", "count": 1, "position": ["left of", 0]}]}, "clause 0, which does not come before"),
        ({"include": [{"class": "cat", "count": 1, "position": ["beside", 0]}]}, "`position` is .'beside', 0."),
        ({"include": [{"class": "cat", "count": 1, "position": "left of"}]}, "`position` is 'left of'"),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_judged_is_refused_by_number(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        metadata.read_metadata(write_lines(tmp_path / "m.jsonl", [CAT, DOGS | change]))


def test_a_folder_is_read_alike_for_judging_and_for_scoring(tmp_path):
    samples = tmp_path / "00000" / "samples"
    samples.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(samples / "0000.png")
    write_lines(tmp_path / "00000/metadata.jsonl", [DOGS])
    (picture,) = read_gallery(tmp_path).pictures
    (sample,) = find_media(tmp_path)[0].samples
    assert {**sample.metadata, "prompt": sample.prompt} == picture.metadata == DOGS
    write_lines(tmp_path / "00000/metadata.jsonl", [DOGS | {"exclude": [{"class": "dog"}]}])
    for read in (read_gallery, find_media):
        with pytest.raises(UserError, match=r"00000/metadata.jsonl, prompt 1: clause 0 has no whole number"):
            read(tmp_path)


def test_a_prompt_without_objects_can_be_scored_but_not_judged(tmp_path):
    file = write_lines(tmp_path / "m.jsonl", [{"prompt": "a photo of a cat"}])
    assert metadata.read_metadata(file, judged=False) == [{"prompt": "a photo of a cat"}]
    with pytest.raises(UserError, match="`tag` is None"):
        metadata.read_metadata(file)


@pytest.mark.parametrize(
    "include", [[{"class": "star"}], [{"class": "star", "count": 1, "position": ["above", 3]}], "star"]
)
def test_a_scorer_that_judges_refuses_the_same(include):
    """Metadata of lines edited by hand reach it without a reader."""
    with pytest.raises(UserError, match="the metadata of 'a photo of a star' cannot be judged: "):
        MiniatureScorer()([Image.new("RGB", (64, 64))], ["a photo of a star"], [{"include": include}])
