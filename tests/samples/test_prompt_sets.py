"""Files as their publishers write them, cut short."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sipo.errors import UserError
from sipo.samples.prompt_sets import HPS_STYLES
from sipo.samples.prompts import read_prompts


def rows(path):
    return [(item.prompt, item.metadata) for item in read_prompts(path)]


def test_a_style_of_hpsv2(tmp_path):
    (tmp_path / "concept-art.json").write_text(json.dumps(["a castle", "a “dragon”"]))
    expected = [("a castle", {"style": "concept-art"}), ("a “dragon”", {"style": "concept-art"})]
    assert rows(tmp_path / "concept-art.json") == expected


def test_the_whole_benchmark_of_hpsv2_is_its_folder(tmp_path):
    for style in HPS_STYLES:
        (tmp_path / f"{style}.json").write_text(json.dumps([f"{style} 0", f"{style} 1"]))
    found = rows(tmp_path)
    assert len(found) == 8
    assert found[2] == ("concept-art 0", {"style": "concept-art"})
    (tmp_path / "photo.json").unlink()
    with pytest.raises(UserError, match=r"without photo\.json"):
        read_prompts(tmp_path)


def test_vbench(tmp_path):
    entries = [{"prompt_en": "a red car", "dimension": ["color"]}, {"prompt_en": "alley", "dimension": ["scene"]}]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(entries))
    expected = [("a red car", {"dimension": ["color"]}), ("alley", {"dimension": ["scene"]})]
    assert rows(tmp_path / "VBench_full_info.json") == expected


def test_captions_of_pick_a_pic_come_once_each(tmp_path):
    table = pa.table({"caption": ["b", "a", "b", None, "c"], "label_0": [1.0, 0.0, 0.5, 1.0, 0.0]})
    pq.write_table(table, tmp_path / "test.parquet")
    assert rows(tmp_path / "test.parquet") == [("b", None), ("a", None), ("c", None)]


def test_partiprompts_keep_their_quotation_marks(tmp_path):
    path = tmp_path / "PartiPrompts.tsv"
    path.write_text(
        "Prompt\tCategory\tChallenge\tNote\n"
        "bond\tAbstract\tBasic\tseveral meanings\n"
        '"Fly" an airplane, "now\tOutdoor Scenes\tComplex\t\n'
    )
    assert rows(path) == [
        ("bond", {"category": "Abstract", "challenge": "Basic"}),
        ('"Fly" an airplane, "now', {"category": "Outdoor Scenes", "challenge": "Complex"}),
    ]


def test_drawbench_with_quoted_fields(tmp_path):
    path = tmp_path / "drawbench.csv"
    path.write_bytes(
        b'Prompts,Category\r\nA red colored car.,Colors\r\n"A sign that says ""Hi"",\nin red",Text\r\n,Text\r\n'
    )
    assert rows(path) == [
        ("A red colored car.", {"category": "Colors"}),
        ('A sign that says "Hi",\nin red', {"category": "Text"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("anime.json", b'{"prompts": []}', "expected a list of texts"),
        ("anime.json", b'["a", 3]', "entry 1: expected a text, found 3"),
        ("anime.json", b'["a"', "is not JSON"),
        ("anime.json", b"[]", "holds no prompt"),
        ("parti.tsv", b"Text\tCategory\nbond\tAbstract\n", "column Prompt or Prompts, found Text, Category"),
        ("draw.csv", b"", "found nothing"),
        ("test.parquet", b"no parquet", "is not a parquet file"),
    ],
)
def test_mistakes_name_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_prompts(tmp_path / name)
    assert name in str(caught.value)


def test_a_parquet_without_captions_lists_its_columns(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="no column caption; it has text"):
        read_prompts(tmp_path / "x.parquet")
