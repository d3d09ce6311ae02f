"""The seed behind a generated file, wherever it lies in its folder, and of no other file."""

import os

from PIL import Image

from sipo.samples.folder import PromptItem, drawn_as
from sipo.samples.generate import generate

SETTINGS = {"model": "grey", "height": 8}


def grey(prompts, seeds):
    return [Image.new("RGB", (8, 8), (seed % 256,) * 3) for seed in seeds]


def test_seeds_are_found_in_flat_folders_and_in_geneval_s_layout(tmp_path):
    items = [PromptItem("a", 7), PromptItem("b", 8)]
    flat = generate(grey, items, tmp_path / "flat", SETTINGS)
    deep = generate(
        grey, items, tmp_path / "deep", SETTINGS, files=["00000/samples/0000.png", "00001/samples/0000.png"]
    )
    assert [drawn_as(flat / name) for name in ("00000.png", "00001.png")] == [(7, SETTINGS), (8, SETTINGS)]
    assert drawn_as(deep / "00001" / "samples" / "0000.png") == (8, SETTINGS)


def test_a_folder_that_has_grown_is_read_again(tmp_path):
    folder = generate(grey, [PromptItem("a", 7)], tmp_path / "samples", SETTINGS)
    assert drawn_as(folder / "00001.png") is None
    generate(grey, [PromptItem("a", 7), PromptItem("b", 8)], folder, SETTINGS)
    os.utime(folder / "samples.jsonl", ns=(1, 1))  # clocks are coarse
    assert drawn_as(folder / "00001.png") == (8, SETTINGS)


def test_other_files_have_none(tmp_path):
    folder = generate(grey, [PromptItem("a", 7)], tmp_path / "samples", SETTINGS)
    (folder / "mine.png").write_bytes(b"")
    assert drawn_as(folder / "mine.png") is None
    assert drawn_as(tmp_path / "elsewhere.png") is None
    (folder / "settings.json").unlink()  # what drew the samples is not known
    assert drawn_as(folder / "00000.png") is None
