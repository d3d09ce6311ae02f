import json

import pytest

from sipo.errors import UserError
from sipo.samples.prompts import read_prompts


def test_text_lines_become_prompts_with_a_seed_each(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa cat\n\n  ein Bär \n", encoding="utf-8")
    items = read_prompts(path, seed=7)
    assert [(i.prompt, i.seed, i.metadata) for i in items] == [("a cat", 7, None), ("ein Bär", 8, None)]


def test_geneval_lines_keep_their_metadata(tmp_path):
    row = {"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "two dogs\u2028 here"}
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    (item,) = read_prompts(path)
    assert item.prompt == "two dogs\u2028 here"
    assert item.metadata == {"tag": "counting", "include": [{"class": "dog", "count": 2}]}


def test_limit_and_several_pictures_a_prompt(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a\nb\nc\n")
    items = read_prompts(path, limit=2, images_per_prompt=2)
    assert [(i.prompt, i.seed) for i in items] == [("a", 0), ("a", 1), ("b", 2), ("b", 3)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", " \n\n", "holds no prompt"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "line 2: not JSON"),
        ("p.jsonl", '{"caption": "a"}\n', 'line 1: expected an object with a text under "prompt"'),
        ("p.jsonl", '["a"]\n', "line 1"),
        ("p.docx", "a\n", "not .docx"),
    ],
)
def test_mistakes_name_the_file_and_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_prompts(tmp_path / name)
    assert name in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompts(tmp_path / "p.txt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No prompt file at .*nowhere\.txt"):
        read_prompts(tmp_path / "nowhere.txt")


def test_limit_must_be_positive(tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        read_prompts(tmp_path / "p.txt", limit=0)


def test_the_packaged_prompts_are_there_with_their_categories():
    items = read_prompts("miniature", limit=240)
    assert len({(item.prompt, item.seed) for item in items}) == 240
    assert len({item.metadata["tag"] for item in items}) == 6
