"""Files of JSON lines whose writer may have been killed: what is read back, what is refused, what a resume appends to."""

import pytest

from sipo.errors import UserError
from sipo.jsonl import append_jsonl, cut_torn_line, dump_jsonl, read_json, read_jsonl

RECORDS = [{"step": 1, "text": "schön\nzwei"}, {"step": 2, "nested": {"x": [0.1, None]}}]


def test_records_come_back_and_stay_readable(tmp_path):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, RECORDS[:1])
    append_jsonl(path, RECORDS[1:])
    assert read_jsonl(path) == RECORDS
    assert path.read_text(encoding="utf-8") == dump_jsonl(RECORDS)
    assert "schön" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("length", range(1, 12))
def test_a_torn_last_line_is_ignored_at_any_byte_and_cut_before_the_next_append(tmp_path, length):
    path = tmp_path / "a.jsonl"
    append_jsonl(path, RECORDS)
    path.write_bytes(path.read_bytes() + dump_jsonl(RECORDS).encode()[:length])
    assert read_jsonl(path) == RECORDS
    cut_torn_line(path)
    append_jsonl(path, RECORDS)
    assert read_jsonl(path) == RECORDS * 2


def test_damage_elsewhere_is_named_by_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    for damage, message in ((b'{"step": ', "not JSON"), (b"\xff\xfe", "not JSON"), (b"[1]", "expected an object")):
        path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
        with pytest.raises(UserError, match=rf"a\.jsonl, line 2: {message}"):
            read_jsonl(path)


def test_numbers_that_json_does_not_have_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        append_jsonl(tmp_path / "a.jsonl", [{"loss": float("nan")}])
    assert not (tmp_path / "a.jsonl").exists() or read_jsonl(tmp_path / "a.jsonl") == []


def test_nothing_is_cut_from_a_file_that_does_not_exist(tmp_path):
    cut_torn_line(tmp_path / "absent.jsonl")
    assert not (tmp_path / "absent.jsonl").exists()


def test_a_json_file_is_read_missed_or_named(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_text('{"a": [1]}')
    assert read_json(path) == {"a": [1]}
    for damage in (b'{"a": ', b"\xff\xfe"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"a\.json is not JSON \(.*\)\. Write it again\.$"):
            read_json(path, "Write it again.")
        with pytest.raises(UserError, match=r"a\.json is not JSON \(.*\)\.$"):
            read_json(path)
