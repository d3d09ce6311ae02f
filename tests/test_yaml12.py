"""Types as YAML 1.2 has them, read safely; what is written reads back the same by YAML 1.1's rules too."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sipo.yaml12 import read_yaml, write_yaml

SPECIFICATION = """
A null: null
Also a null: # Empty
Not a null: ""
Booleans: [ true, True, false, FALSE ]
Integers: [ 0, 0o7, 0x3A, -19 ]
Floats: [ 0., -0.0, .5, +12e03, -2E+05 ]
Also floats: [ .inf, -.Inf, +.INF, .NAN ]
"""  # example 10.9 of YAML 1.2.2, the core schema


def test_the_example_of_the_specification():
    *floats, nan = (found := read_yaml(SPECIFICATION)).pop("Also floats")
    assert floats == [math.inf, -math.inf, math.inf]
    assert math.isnan(nan)
    assert found == {
        "A null": None,
        "Also a null": None,
        "Not a null": "",
        "Booleans": [True, True, False, False],
        "Integers": [0, 7, 58, -19],
        "Floats": [0.0, -0.0, 0.5, 12000.0, -200000.0],
    }
    assert [type(number) for number in found["Floats"]] == [float] * 5


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "y", "N", "1:30", "1_000", "2024-01-01", "007", "=", "e5"])
def test_what_stays_a_text(text):
    assert read_yaml(text) == text
    assert read_yaml(write_yaml({"key": text})) == {"key": text}


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [true]", "!!python/name:os.system", "!anything x"])
def test_no_other_object_is_built(text):
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        read_yaml(text)


def test_merge_keys():
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")["b"] == {"x": 1, "y": 3}


printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | printable | st.from_regex(
    r"\A[-+]?[0-9]{0,3}[._xo:]?[0-9]{0,3}([eE][-+]?[0-9]{1,2})?\Z"
)  # fmt: skip


@given(st.dictionaries(printable, values | st.lists(values)))
def test_what_is_written_reads_back(content):
    assert read_yaml(write_yaml(content)) == content
    assert yaml.safe_load(write_yaml(content)) == content


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "fixtures").rglob("config.yaml")), ids=str)
def test_the_config_of_an_old_run_reads_as_it_did(path):
    assert read_yaml(path.read_text()) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("train: {a: 1}\ndata: {}\ntrain: {b: 2}\n", "train", "1 and 3"),
        ("train:\n  a: 1\n  b: 2\n  a: 3\n", "a", "2 and 4"),
        ("grid: [{x: 1, x: 1}]", "x", "1 and 1"),
        ("1: a\n1: b\n", "1", "1 and 2"),
    ],
)
def test_a_key_twice_at_any_level_is_an_error(text: str, key: str, lines: str) -> None:
    with pytest.raises(yaml.YAMLError, match=f"'?{key}'? stands twice, in lines {lines}"):
        read_yaml(text)


def test_merge_keys_are_overridden_as_before() -> None:
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")["b"] == {"x": 3, "y": 2}


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = read_yaml("a: ~/x\nb: '~/y'\nc: ~\nd: '~'\ne: a ~/b\n")
    assert found == {"a": f"{tmp_path}/x", "b": f"{tmp_path}/y", "c": None, "d": "~", "e": "a ~/b"}
