"""Captions that text encoders cut are counted, against the tokenizers' own rule: one token a letter, and two around."""

import pytest
from support.pictures import pick_a_pic, write_parquet
from typer.testing import CliRunner

from sipo.backbones import captions, read_architecture
from sipo.backbones.captions import overlong
from sipo.cli import app
from sipo.config import ModelConfig

FITS, LONG = "a" * 14, "b" * 15  # the tiny tokenizers read 16 tokens; start and end are two of them


@pytest.mark.parametrize(("family", "parts"), [("sd", 1), ("sdxl", 2)])
def test_counts(tiny_family, family, parts):
    folder = tiny_family(family)
    architecture = read_architecture(ModelConfig(str(folder)))
    assert overlong(architecture, folder, [FITS, "", FITS]) == []
    found = overlong(architecture, folder, [FITS, LONG, LONG, LONG + "c"])
    assert [(one.count, one.total, one.limit, one.longest) for one in found] == [(2, 3, 16, 18)] * parts
    assert "2 of 3 captions are longer than text_encoder reads: 16 tokens (the longest has 18)" in str(found[0])


def test_the_same_captions_are_counted_once(tiny_family, tmp_path, monkeypatch):
    folder = tiny_family("sd")
    architecture = read_architecture(ModelConfig(str(folder)))
    counted, count = [], captions._count
    monkeypatch.setattr(captions, "_count", lambda *given: counted.append(given[2]) or count(*given))
    first = overlong(architecture, folder, [LONG, FITS], tmp_path)
    assert first == count(architecture, folder, [FITS, LONG])
    assert overlong(architecture, folder, [FITS, LONG, FITS], tmp_path) == first
    assert counted == [[FITS, LONG]]
    overlong(architecture, folder, [FITS], tmp_path)
    other = tiny_family("cogvideox-2b")
    overlong(read_architecture(ModelConfig(str(other))), other, [FITS, LONG], tmp_path)
    assert len(counted) == 3
    for file in tmp_path.iterdir():  # a damaged memory is none
        file.write_text("{")
    assert overlong(architecture, folder, [LONG, FITS], tmp_path) == first


def test_windows_are_the_advice_and_read_more(tiny_sd, tiny_family):
    folder, caption = tiny_family("sd"), "b" * 30  # windows of 14
    (cut,) = overlong(read_architecture(ModelConfig(str(folder))), folder, [caption])
    assert str(cut).endswith("cut off; model.caption_windows: 3 reads all of them")
    in_two = read_architecture(ModelConfig(str(folder), caption_windows=2))
    assert [(one.limit, one.windows) for one in overlong(in_two, folder, [caption])] == [(30, 3)]
    assert overlong(in_two, folder, ["b" * 28]) == []
    folder = tiny_family("cogvideox-2b")
    assert "windows" not in str(overlong(read_architecture(ModelConfig(str(folder))), folder, ["a" * 40])[0])


def test_t5_cuts_as_well(tiny_family):
    folder = tiny_family("cogvideox-2b")
    architecture = read_architecture(ModelConfig(str(folder)))
    assert [one.limit for one in overlong(architecture, folder, ["a" * 40])] == [16]
    assert overlong(architecture, folder, ["a"]) == []


def test_the_command(tiny_sd, tmp_path):
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(2) | {"caption": [FITS, LONG]})
    done = CliRunner().invoke(app, ["data", "check", str(path), "--model", str(tiny_sd)])
    assert done.exit_code == 0, done.output
    assert "1 of 2 captions are longer" in " ".join(done.output.split())


def test_a_chat_template_takes_room(tiny_family):
    """Of the 512 tokens that Qwen-Image's network gets, five are the template's."""
    folder = tiny_family("qwen-image")
    architecture = read_architecture(ModelConfig(str(folder)))
    assert overlong(architecture, folder, ["a" * 507]) == []
    (found,) = overlong(architecture, folder, ["a" * 508])
    assert (found.limit, found.longest) == (507, 508)
