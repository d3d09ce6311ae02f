"""GenEval's files: the metadata read, the official layout written and read, whoever made it, and what is missing."""

import json
from pathlib import Path

import pytest
from PIL import Image
from support.geneval import BESIDE, CAT, DOGS, write_lines

from sipo.errors import UserError
from sipo.geneval import layout


def make_folder(folder: Path, counts: dict[int, int], digits: int = 4) -> Path:
    """A folder as the official script leaves it: numbers of prompts -> pictures of each; with its grid.png."""
    for number, count in counts.items():
        samples = folder / f"{number:05d}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(CAT | {"prompt": f"a photo of cat {number}"}))
        Image.new("RGB", (8, 8)).save(samples.parent / "grid.png")
        for i in range(count):
            Image.new("RGB", (8, 8)).save(samples / f"{i:0{digits}d}.png")
    return folder


def test_names_and_seeds_of_the_pictures():
    items, files = layout.plan_pictures([CAT, DOGS], ["a cat, fluffy", "dogs"], images_per_prompt=2, seed=7)
    assert files == [
        "00000/samples/0000.png", "00000/samples/0001.png", "00001/samples/0000.png", "00001/samples/0001.png",
    ]  # fmt: skip
    assert [item.seed for item in items] == [7, 8, 9, 10]
    assert [item.prompt for item in items] == ["a cat, fluffy"] * 2 + ["dogs"] * 2
    assert [item.metadata for item in items] == [CAT, CAT, DOGS, DOGS]


def test_rewritten_prompts_go_with_the_metadata_in_order(tmp_path):
    (tmp_path / "r.txt").write_text("a fluffy cat\ntwo dogs\n")
    assert layout.read_rewritten(tmp_path / "r.txt", [CAT, DOGS]) == ["a fluffy cat", "two dogs"]
    lines = write_lines(tmp_path / "r.jsonl", [CAT | {"prompt": "a fluffy cat"}, {"prompt": "two dogs"}])
    assert layout.read_rewritten(lines, [CAT, DOGS]) == ["a fluffy cat", "two dogs"]
    with pytest.raises(UserError, match="holds 2 prompts, the metadata 1"):
        layout.read_rewritten(lines, [CAT])
    with pytest.raises(UserError, match="prompt 1: its `include` is not that of 'a photo of two dogs'"):
        layout.read_rewritten(lines, [DOGS, CAT])


def test_metadata_lies_beside_the_pictures_and_is_not_overwritten(tmp_path):
    layout.write_metadata(tmp_path, [CAT, DOGS])
    assert json.loads((tmp_path / "00001/metadata.jsonl").read_text()) == DOGS
    layout.write_metadata(tmp_path, [BESIDE, DOGS])
    assert json.loads((tmp_path / "00000/metadata.jsonl").read_text()) == CAT


@pytest.mark.parametrize("digits", [4, 5])
def test_a_folder_made_by_others_is_read(tmp_path, digits):
    """The official script numbers its pictures with five digits, its README shows four."""
    gallery = layout.read_gallery(make_folder(tmp_path, {0: 12, 1: 12}, digits))
    assert gallery.missing == []
    assert [p.path.parts[-3] for p in gallery.pictures] == ["00000"] * 12 + ["00001"] * 12
    assert [int(p.path.stem) for p in gallery.pictures] == [*range(12), *range(12)]
    assert gallery.pictures[-1].metadata["prompt"] == "a photo of cat 1"


def test_what_else_lies_there_is_passed_over(tmp_path):
    folder = make_folder(tmp_path, {0: 1})
    (folder / "scores").mkdir()
    (folder / "00000/samples/best.png").write_bytes(b"")
    (folder / "00000/samples/0001.png.part").write_bytes(b"")
    assert len(layout.read_gallery(folder).pictures) == 1


def test_what_is_missing_is_named(tmp_path):
    folder = make_folder(tmp_path, {2: 4, 3: 3, 5: 4, 6: 0, 8: 4})
    (folder / "00005/metadata.jsonl").unlink()
    gallery = layout.read_gallery(folder)
    assert len(gallery.pictures) == 4 + 3 + 4
    assert gallery.missing == [
        "00003/samples: 3 of 4 pictures", "00004: no folder", "00005/metadata.jsonl",
        "00006/samples: 0 of 4 pictures", "00007: no folder",
    ]  # fmt: skip


def test_folders_without_any_picture_or_metadata(tmp_path):
    for folder in (tmp_path, tmp_path / "absent", make_folder(tmp_path / "empty", {0: 0})):
        with pytest.raises(UserError, match="is not in GenEval's layout"):
            layout.read_gallery(folder)
    folder = make_folder(tmp_path / "stopped", {0: 1})
    (folder / "00000/metadata.jsonl").unlink()
    with pytest.raises(UserError, match=r"no prompt has its metadata.jsonl. Was generation stopped\?"):
        layout.read_gallery(folder)


@pytest.mark.parametrize(("content", "message"), [("{", "not JSON"), ('{"prompt": "x"}', "`tag` is None")])
def test_metadata_that_is_damaged_is_named(tmp_path, content, message):
    folder = make_folder(tmp_path, {0: 1})
    (folder / "00000/metadata.jsonl").write_text(content)
    with pytest.raises(UserError, match=rf"00000/metadata.jsonl.*{message}"):
        layout.read_gallery(folder)


def test_pictures_of_others_are_not_written_over(tmp_path):
    folder = make_folder(tmp_path, {0: 1})
    with pytest.raises(UserError, match=r"0000\.png was not made by this command"):
        layout.refuse_foreign(folder)
    (folder / "settings.json").write_text("{}")
    layout.refuse_foreign(folder)
    layout.refuse_foreign(tmp_path / "absent")


def test_every_class_that_a_clause_names():
    pictures = [layout.Picture(Path("x"), entry) for entry in (DOGS, BESIDE, CAT)]
    extra = layout.Picture(Path("y"), CAT | {"exclude": [{"class": "ant", "count": 1}]})
    assert layout.class_names([*pictures, extra]) == ["ant", "cat", "dog"]
