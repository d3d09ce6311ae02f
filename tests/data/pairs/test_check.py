"""The check reports every row, each under one kind, and remembers what it found."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from support import videos
from support.pictures import encoded, pick_a_pic, picture, raw_png, write_parquet
from typer.testing import CliRunner

from sipo.cli import app
from sipo.data.bad_rows import KINDS
from sipo.data.pairs import check as check_module
from sipo.data.pairs.check import check_pairs, default_memory
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.report import CheckReport
from sipo.errors import UsageError, UserError
from sipo.size import Size


def check(path: Path, **options) -> CheckReport:
    return check_pairs(path, progress=False, workers=2, **options)


def spoilt() -> tuple[dict[str, list], dict[str, list[int]]]:
    """Rows 0 and 1 are sound, then every fault that a table can have; and which rows have which."""
    columns = pick_a_pic(17) | {"has_label": [True] * 17}
    columns["caption"] = [f"prompt {n}" for n in range(17)]

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
    put(16, jpg_1=columns["jpg_0"][16])
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
        "identical": [16],
    }
    return columns, faults


def test_every_fault_is_found_in_one_pass(tmp_path: Path) -> None:
    columns, faults = spoilt()
    report = check(write_parquet(tmp_path / "pairs.parquet", columns))
    assert {kind: [problem.index for problem in report.rows(kind)] for kind in KINDS if report.counts[kind]} == faults
    assert report.usable == [0, 1]
    assert report.num_usable + sum(report.counts.values()) == report.num_rows == 17
    assert report.num_bad == 17 - 2 - 2  # the tie and the row without a label are left out, not bad
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
        "6": "empty_image",  # a folder is a video of its pictures, and one of them is empty
        "8": "missing_file",
        "9": "malformed",
    }
    assert report.usable == [0, 6]
    assert "gone.png" in report.problems[0].detail


def test_every_kind_can_occur() -> None:
    """The tests above and below show them all."""
    shown = {*spoilt()[1], "missing_file", "malformed", "too_short", "mismatched"}
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


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_members_of_one_colour_are_named_and_kept(tmp_path: Path, mode: str) -> None:
    columns = pick_a_pic(3)
    columns["jpg_1"][1] = encoded(Image.new(mode, (64, 48)))
    columns["label_0"] = [1.0, 1.0, 0.0]
    report = check(write_parquet(tmp_path / "pairs.parquet", columns))
    assert report.usable == [0, 1, 2]
    assert report.flat == ("pairs.parquet:1 (rejected)",)
    assert CheckReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    console = Console(width=160, file=io.StringIO())
    report.render(console)
    assert "1 members are one colour all over, such as black: pairs.parquet:1 (rejected)" in console.file.getvalue()


def test_the_table_names_counts_and_rows(tmp_path: Path) -> None:
    report = check(write_parquet(tmp_path / "pairs.parquet", spoilt()[0]))

    def shown(examples: int | None) -> str:
        console = Console(width=160, file=io.StringIO())
        report.render(console, examples)
        return console.file.getvalue()

    assert "17 rows (Pick-a-Pic)" in shown(None)
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
    check(path, remember=memory, max_pixels=10**6)
    assert len(probed) == 24
    for file in memory.iterdir():  # a damaged memory is none
        file.write_text("{")
    assert check(path, remember=memory) == first


def test_a_check_serves_the_training_of_a_model_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sipo data check` reads every byte whatever is remembered; the training after it reads none."""
    path = write_parquet(tmp_path / "pairs.parquet", spoilt()[0])
    expected = check(path, size=Size(8, 8))
    judged, judge = [], check_module._judge
    monkeypatch.setattr(check_module, "_judge", lambda *given: judged.append(given[1]) or judge(*given))
    for times in (1, 2):
        CliRunner().invoke(app, ["data", "check", str(path)])
        assert len(judged) == 17 * times
    assert check(path, remember=default_memory(), size=Size(8, 8)) == expected
    assert len(judged) == 34
    check(path, remember=default_memory(), size=Size(8, 8, 5, 8.0))  # a model of videos takes no pictures
    assert len(judged) == 51


def test_a_check_of_videos_says_nothing_of_a_model_of_images(tmp_path: Path) -> None:
    clips = {"jpg_0": [videos.video(videos.noise(4), 8)], "jpg_1": [videos.video(videos.noise(4, seed=1), 8)]}
    path = write_parquet(tmp_path / "pairs.parquet", {**clips, "label_0": [1.0], "caption": ["a"]})
    memory = tmp_path / "memory"
    assert check(path, remember=memory).num_usable == 1
    assert check(path, remember=memory, size=Size(8, 8)).counts["mismatched"] == 1


def test_an_opened_source_brings_its_own_options(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(4) | {"label_0": [1.0, 0.5, 1.0, 1.0]})
    report = check(open_pairs(path, ties="error", max_pairs=3))
    assert (report.num_rows, report.ties, report.num_bad) == (3, "error", 1)


def test_members_that_are_one_picture(tmp_path: Path) -> None:
    """Equal files, and equal pixels in files that differ; two pictures that differ in one pixel are a pair."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    one, two = Image.fromarray(pixels), Image.fromarray(other)
    pairs = [
        (encoded(one), encoded(one)),
        (encoded(one), encoded(one, compress_level=1)),
        (encoded(one, "JPEG"), encoded(one, "JPEG", comment=b"another file")),
        (encoded(one), encoded(two)),
        (encoded(one, "JPEG", quality=95), encoded(one, "JPEG", quality=90)),
    ]
    columns = {"jpg_0": [a for a, _ in pairs], "jpg_1": [b for _, b in pairs], "label_0": [1.0] * 5,
               "caption": [f"p{n}" for n in range(5)]}  # fmt: skip
    report = check(write_parquet(tmp_path / "pairs.parquet", columns))
    assert [problem.index for problem in report.rows("identical")] == [0, 1, 2]
    assert report.usable == [3, 4]
    with pytest.raises(UserError, match="pairs whose two members are the same"):
        report.require("stop")


def test_one_video_twice(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(videos.video(videos.grey(4)))
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "a.mp4", "rejected": "b.mp4"}))
    assert check(tmp_path / "pairs.jsonl").counts["identical"] == 1


@pytest.mark.parametrize("label", [0.5, 1.0])
def test_the_command_fails_where_nothing_is_usable(tmp_path: Path, label: float) -> None:
    """Ties alone are no fault of any row, but there is nothing to train on."""
    path = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(3) | {"label_0": [label] * 3})
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code == (1 if label == 0.5 else 0)
    assert ("nothing is usable" in done.output) == (label == 0.5)


# videos


def clips(tmp_path: Path) -> Path:
    """A manifest of videos: two sound pairs, then one of every fault that only videos have."""
    short, long, slow = (videos.video(videos.grey(n), fps) for n, fps in ((8, 8), (12, 8), (4, 4)))
    files = {"a.mp4": long, "b.webm": videos.video(videos.grey(24), 16, "webm"), "short.mp4": short, "slow.mov": slow,
             "cut.mp4": long[:-40], "sound.mp4": videos.audio(), "picture.png": picture(0)}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    videos.folder(tmp_path / "frames", videos.grey(12))
    pairs = [("a.mp4", "b.webm"), ("frames", "a.mp4"), ("a.mp4", "short.mp4"), ("slow.mov", "short.mp4"),
             ("a.mp4", "cut.mp4"), ("a.mp4", "sound.mp4"), ("a.mp4", "picture.png"), ("b.webm", "a.mp4")]  # fmt: skip
    rows = [{"prompt": "p", "chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path / "pairs.jsonl"


def kinds(report: CheckReport) -> dict[int, str]:
    return {problem.index + 1: problem.kind for problem in report.problems}


def test_faults_of_videos(tmp_path: Path) -> None:
    """Lines 3 and 4 are of 1.5 and 1 s, and of 1 s both; a model that needs 1.25 s finds the short ones too short."""
    path = clips(tmp_path)
    always = {5: "truncated", 6: "undecodable", 7: "mismatched", 8: "duplicate"}
    plain = check(path)
    assert kinds(plain) == {3: "mismatched", **always}
    details = {problem.index + 1: problem.detail for problem in plain.problems}
    assert details[3].startswith("chosen lasts 1.50 s (12 frames), rejected 1.00 s (8 frames)")
    assert details[7] == "the chosen member is a video, the other an image"
    assert "no video stream" in details[6]
    assert kinds(check(path, size=Size(8, 8, 11, 8.0))) == {
        3: "too_short", 4: "too_short", **always, 7: "too_short"
    }  # fmt: skip
    assert kinds(check(path, size=Size(8, 8, 8, 8.0)))[7] == "too_short"  # an image has one frame


def test_a_model_of_images_takes_no_videos(tmp_path: Path) -> None:
    assert set(check(clips(tmp_path), size=Size(8, 8)).counts.items()) >= {("mismatched", 8)}
    pictures = write_parquet(tmp_path / "pairs.parquet", pick_a_pic(2))
    assert check(pictures, size=Size(8, 8)).num_usable == 2


def test_videos_in_a_table(tmp_path: Path) -> None:
    sound, other = videos.video(videos.noise(8)), videos.video(videos.noise(8, seed=1))
    table = pick_a_pic(3) | {"jpg_0": [sound, sound, sound[:-9]], "jpg_1": [other, picture(0), other]}
    report = check(write_parquet(tmp_path / "pairs.parquet", table))
    assert kinds(report) == {2: "mismatched", 3: "truncated"}


def test_a_frame_that_changes_changes_the_stamp(tmp_path: Path) -> None:
    path = clips(tmp_path)
    before, name = open_pairs(path).stamp, tmp_path / "frames" / "frame-3.png"
    assert open_pairs(path).stamp == before
    fingerprint = open_pairs(path).fingerprint
    name.write_bytes(picture(5, (32, 24)))
    assert open_pairs(path).stamp != before
    assert open_pairs(path).fingerprint != fingerprint


def test_the_command_says_how_long_videos_must_be(tmp_path: Path) -> None:
    path = str(clips(tmp_path))
    result = CliRunner().invoke(app, ["data", "check", path, "--num-frames", "11", "--fps", "8", "--all"])
    assert result.exit_code == 1
    assert "pairs.jsonl:4 too_short: lasts 1.00 s (4 frames); 11 frames at 8 fps" in " ".join(result.output.split())
    with pytest.raises(UsageError, match="give both or neither"):
        CliRunner().invoke(app, ["data", "check", path, "--fps", "8"], catch_exceptions=False)
