"""The check reports every row, each under one kind, and remembers what it found."""

import io
import json
import os
from pathlib import Path

import pytest
from pictures import pick_a_pic, picture, raw_png, write_parquet
from rich.console import Console

from sipo.data import check as check_module
from sipo.data.check import check_pairs
from sipo.data.check_report import CheckReport
from sipo.data.pairs import open_pairs
from sipo.data.rows import KINDS
from sipo.errors import UserError


def check(path: Path, **options) -> CheckReport:
    return check_pairs(path, progress=False, workers=2, **options)


def spoilt() -> tuple[dict[str, list], dict[str, list[int]]]:
    """Rows 0 and 1 are sound, then every fault that a table can have; and which rows have which."""
    columns = pick_a_pic(16) | {"has_label": [True] * 16}
    columns["caption"] = [f"prompt {n}" for n in range(16)]

    def put(row: int, **cells: object) -> None:
        for name, value in cells.items():
            columns[name][row] = value

    put(2, label_0=0.5)
    put(3, has_label=False, label_0=0.5)
    put(4, label_0=None)
    put(5, label_0=float("nan"))
    put(6, label_0=2.0)
    put(7, caption=None)
    put(8, caption="  ")
    put(9, jpg_0=b"")
    put(10, jpg_1=None)
    put(11, jpg_1=picture(1, (64, 48), "JPEG")[:-100])
    put(12, jpg_0=b"not an image")
    put(13, jpg_1=raw_png(50_000, 50_000, 8, 2, b""))
    put(14, caption="prompt 0", jpg_0=columns["jpg_0"][0], jpg_1=columns["jpg_1"][0], label_0=1.0)
    put(15, caption="prompt 1", jpg_0=columns["jpg_1"][1], jpg_1=columns["jpg_0"][1], label_0=0.0)
    faults = {
        "tie": [2],
        "unlabelled": [3],
        "bad_label": [4, 5, 6],
        "blank_caption": [7, 8],
        "empty_image": [9, 10],
        "truncated": [11],
        "undecodable": [12],
        "too_large": [13],
        "duplicate": [14, 15],
    }
    return columns, faults


def test_every_fault_is_found_in_one_pass(tmp_path: Path) -> None:
    columns, faults = spoilt()
    report = check(write_parquet(tmp_path / "pairs.parquet", columns))
    assert {kind: [problem.index for problem in report.rows(kind)] for kind in KINDS if report.counts[kind]} == faults
    assert report.usable == [0, 1]
    assert report.num_usable + sum(report.counts.values()) == report.num_rows == 16
    assert report.num_bad == 16 - 2 - 2  # the tie and the row without a label are left out, not bad
    assert [problem.row for problem in report.rows("truncated")] == ["pairs.parquet:11"]
    details = [problem.detail for problem in report.rows("duplicate")]
    assert details == [
        "the same pair as pairs.parquet:0",
        "the same pair as pairs.parquet:1, with the opposite preference",
    ]


def test_the_same_pictures_under_another_prompt_are_no_duplicate(tmp_path: Path) -> None:
    columns = pick_a_pic(2)
    for name in ("jpg_0", "jpg_1"):
        columns[name][1] = columns[name][0]
    assert check(write_parquet(tmp_path / "pairs.parquet", columns)).usable == [0, 1]


def test_a_pair_after_an_unusable_copy_of_it_is_usable(tmp_path: Path) -> None:
    columns = pick_a_pic(2) | {"caption": ["p", "p"], "label_0": [0.5, 1.0]}
    for name in ("jpg_0", "jpg_1"):
        columns[name][1] = columns[name][0]
    assert check(write_parquet(tmp_path / "pairs.parquet", columns)).usable == [1]


def test_ties_can_be_faults(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(2) | {"label_0": [0.5, 1.0]})
    dropped, faulty = check(path, ties="drop"), check(path, ties="error")
    assert (dropped.counts["tie"], dropped.num_bad, dropped.require()) == (1, 0, [1])
    assert (faulty.counts["tie"], faulty.num_bad) == (1, 1)
    with pytest.raises(UserError, match=r"(?s)1 of 2 rows are bad.*ties.*pairs\.parquet:0"):
        faulty.require("stop")
    assert faulty.require("skip") == [1]


def test_files_of_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "b.png").write_bytes(picture(2))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "clip.mp4").write_bytes(b"xxxx")
    members = ["b.png", "gone.png", "empty.png", "clip.mp4", "../b.png", ".", str(tmp_path / "b.png"), "a\0.png"]
    rows = [{"prompt": f"prompt {n}", "chosen": "a.png", "rejected": member} for n, member in enumerate(members)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, "{broken"]))
    report = check(tmp_path / "pairs.jsonl")
    found = {problem.row.split(":")[1]: problem.kind for problem in report.problems}
    assert found == {
        "2": "missing_file",
        "3": "empty_image",
        "4": "undecodable",
        "5": "malformed",
        "6": "missing_file",
        "8": "missing_file",
        "9": "malformed",
    }
    assert report.usable == [0, 6]
    assert "gone.png" in report.problems[0].detail


def test_every_kind_can_occur() -> None:
    """The two tests above show them all."""
    shown = {*spoilt()[1], "missing_file", "malformed"}
    assert shown == set(KINDS)


def test_the_cap_is_an_option(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(1))  # of 20 x 12
    assert check(path, max_pixels=240).num_usable == 1
    assert check(path, max_pixels=239).counts["too_large"] == 1


def test_nothing_usable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    report = check(write_parquet(tmp_path / "pairs.parquet", pick_a_pic(2) | {"label_0": [0.5, 0.5]}))
    for on_bad_rows in ("stop", "skip"):
        with pytest.raises(UserError, match="none of the 2 rows is usable: 2 ties"):
            report.require(on_bad_rows)


def test_a_report_survives_json(tmp_path: Path) -> None:
    report = check(write_parquet(tmp_path / "pairs.parquet", spoilt()[0]))
    saved = json.loads(json.dumps(report.to_dict()))
    assert CheckReport.from_dict(saved) == report
    assert saved["counts"] == report.counts
    assert saved["num_usable"] == 2


def test_the_table_names_counts_and_rows(tmp_path: Path) -> None:
    report = check(write_parquet(tmp_path / "pairs.parquet", spoilt()[0]))

    def shown(examples: int | None) -> str:
        console = Console(width=160, file=io.StringIO())
        report.render(console, examples)
        return console.file.getvalue()

    assert "16 rows (Pick-a-Pic)" in shown(None)
    assert "pairs.parquet:4, pairs.parquet:5, pairs.parquet:6 " in shown(None)
    assert "pairs.parquet:4, pairs.parquet:5 ..." in shown(2)
    assert "pairs.parquet:5 bad_label: label_0 is nan" in shown(2)
    assert "pairs.parquet:6 bad_label" in shown(3)
    assert "pairs.parquet:6 bad_label" not in shown(2)


def test_an_unchanged_data_set_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(3))
    probed: list[bytes] = []
    probe = check_module.probe
    monkeypatch.setattr(check_module, "probe", lambda media, cap: probed.append(media) or probe(media, cap))
    memory = tmp_path / "memory"
    first = check(path, remember=memory)
    assert len(probed) == 6
    assert check(path, remember=memory) == first
    assert len(probed) == 6
    check(path, remember=memory, ties="error")  # other options, other result
    assert len(probed) == 12
    os.utime(path, ns=(1, 1))  # touched
    check(path, remember=memory)
    assert len(probed) == 18
    for file in memory.iterdir():  # a damaged memory is none
        file.write_text("{")
    assert check(path, remember=memory) == first


def test_an_opened_source_brings_its_own_options(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(4) | {"label_0": [1.0, 0.5, 1.0, 1.0]})
    report = check(open_pairs(path, ties="error", max_pairs=3))
    assert (report.num_rows, report.ties, report.num_bad) == (3, "error", 1)
