"""What belongs to a machine and its user is taken out of texts; everything else stays, to the character."""

import html
import json

import pytest

from sipo.push.portable import Portable, is_absolute

HOME = "/users/me"
KNOWN = Portable([HOME, "/srv/my pairs/a b.parquet", "/"], ["the-value-of-a-token", "short"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("data: /users/me/pairs/x.parquet", "data: x.parquet"),
        ("data: /users/me", "data: me"),
        ("/users/mean/", "mean"),  # another one's home
        ('"/srv/my pairs/a b.parquet", row 3', '"a b.parquet", row 3'),
        (html.escape("<dd>/srv/my pairs/a b.parquet</dd>"), html.escape("<dd>a b.parquet</dd>")),
        ("<dd>/mnt/data/x.png</dd>", "<dd>x.png</dd>"),
        ("/mnt/data/: not found", "data: not found"),
        ("(/mnt/data/x.png:17)", "(x.png:17)"),
        ("~/pairs.parquet and ~you/x/y", "pairs.parquet and y"),
        ("file:///mnt/data/x", "x"),
        (r"C:\Users\me\x.png", "x.png"),
        (r'"C:\\Users\\me\\x.png"', '"x.png"'),
        (r"\\server\share\x.png", "x.png"),
        ("sipo train /tmp/a/my.yaml run=/tmp/b/run", "sipo train my.yaml run=run"),
        ("--key hf_abcdefghijklmnopqrstuv", "--key [removed]"),
        ("the-value-of-a-token", "[removed]"),
        ("sk-proj-abcdefghijklmnopqrst", "[removed]"),
        ("https://me:secret@host/x", "https://[removed]@host/x"),
        ("AKIAABCDEFGHIJKLMNOP", "[removed]"),
    ],
)
def test_what_is_taken_out(text, meant):
    assert KNOWN.text(text) == meant
    assert KNOWN.text(meant) == meant


@pytest.mark.parametrize(
    "text",
    [
        "a cat and/or a dog, 50/50", "https://huggingface.co/o/n/tree/main", "hf://datasets/o/n@main/x/y.parquet", "o/n", "runs/demo/x.png",
        "chosen / rejected", "</td></tr>", '<img src="data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ/abc+/def==">', "font: 16px/1.55 x", "/",
        '<svg xmlns="http://www.w3.org/2000/svg"><path d="M 1 2 L 3 4"/><use href="#a"/></svg>', "task-abcdefghijklmnopqrstuvw-xyz",
        "/homeward", "short", "0.5 1e-4", "α/β", "/data", "a * b", "3:4",
    ],
)  # fmt: skip
def test_what_stays(text):
    before = KNOWN.paths, KNOWN.tokens
    assert KNOWN.text(text) == text
    assert (KNOWN.paths, KNOWN.tokens) == before


def test_values():
    value = {
        "a": "/x",
        "b": ["~/y z/w", 1, None, True, 0.5],
        "c": {"d": "C:\\x\\y", "e": "see /mnt/a/b"},
        "f": "/",
        "g": "two\n/lines",
    }
    assert KNOWN.value(value) == {
        "a": "x", "b": ["w", 1, None, True, 0.5], "c": {"d": "y", "e": "see b"}, "f": "/", "g": "two\n/lines",
    }  # fmt: skip
    json.dumps(KNOWN.value(value))
    assert not is_absolute("a/b")
    assert is_absolute("~/a")
