"""GenEval through the real command line, on the miniature: from its prompts to the table, and users' mistakes."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import command_line
from support import detectors as tiny_detectors

from sipo.geneval.layout import read_metadata
from sipo.jsonl import read_jsonl
from sipo.mini.scenes import sample_scene
from sipo.mini.score import MiniatureScorer
from sipo.mini.world import render
from sipo.samples.metadata import CATEGORIES

QUICK = ("--num-inference-steps", "6", "--guidance-scale", "4")
CLASSES = ("cat", "dog", "wine glass")


@pytest.fixture
def sipo(monkeypatch, capsys):
    return partial(command_line.run, monkeypatch, capsys)


@pytest.fixture(scope="module")
def prompts() -> list[dict]:
    """Two of each of the six categories."""
    entries = read_metadata("miniature")
    return [entry for tag in CATEGORIES for entry in [e for e in entries if e["tag"] == tag][:2]]


@pytest.fixture
def metadata(tmp_path, prompts) -> Path:
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in prompts))
    return path


def foreign(folder: Path, entries, shown=None, images=1) -> Path:
    """The layout as others leave it: pictures that are drawn to be right for `shown` (default: the entries)."""
    rng = np.random.default_rng(3)
    for number, (entry, scene) in enumerate(zip(entries, shown or entries, strict=True)):
        samples = folder / f"{number:05d}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps(entry))
        for i in range(images):
            render(sample_scene(scene, rng), rng).save(samples / f"{i:05d}.png")
    return folder


def test_from_a_model_to_the_table(sipo, tmp_path, metadata, prompts):
    out = tmp_path / "mini"
    make = ("geneval", "generate", "miniature", "--metadata", metadata, "--out", out, "--images-per-prompt", 2, *QUICK)
    code, printed, _ = sipo(*make)
    assert (code, printed.splitlines()[-1]) == (0, f"24 pictures in {out}")
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [f"{i:05d}" for i in range(12)]
    for number, entry in enumerate(prompts):
        place = out / f"{number:05d}"
        assert json.loads((place / "metadata.jsonl").read_text()) == entry
        assert sorted(path.name for path in (place / "samples").iterdir()) == ["0000.png", "0001.png"]

    code, printed, _ = sipo("geneval", "judge", out, "--detector", "miniature")
    assert code == 0
    assert "| Model | Sin Obj. | Two Obj. | Counting | Colors | Position | Color Attri. | Overall |" in printed
    records = read_jsonl(out / "results.jsonl")
    images = [Image.open(record["filename"]) for record in records]
    entries = [entry for entry in prompts for _ in range(2)]
    scored = MiniatureScorer().details(images, [entry["prompt"] for entry in entries], entries)
    assert [record["correct"] for record in records] == [detail["correct"] for detail in scored]
    assert {True, False} == {record["correct"] for record in records}
    shares = [np.mean([r["correct"] for r in records if r["tag"] == tag]) for tag in CATEGORIES]

    code, printed, _ = sipo("geneval", "table", out, "--format", "jsonl")
    row = json.loads(printed)
    assert code == 0
    assert [row["Model"], row["prompts"], row["detector"]] == ["miniature", "raw", "miniature"]
    assert list(row.values())[1:8] == pytest.approx([*shares, np.mean(shares)])
    code, printed, _ = sipo("geneval", "table", out, out / "results.jsonl")
    assert code == 0
    assert len({line.split("|", 2)[2].rsplit("|", 3)[0] for line in printed.splitlines()[2:]}) == 1


def test_generation_goes_on_where_it_stopped(sipo, tmp_path, metadata):
    make = ("geneval", "generate", "miniature", "--metadata", metadata, "--images-per-prompt", 1, *QUICK)
    sipo(*make, "--out", tmp_path / "a")
    whole = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.png")}
    lines = (tmp_path / "a/samples.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a/samples.jsonl").write_text("".join(lines[:10]) + lines[10][:30])  # killed inside a line
    for number in (10, 11):
        (tmp_path / f"a/{number:05d}/samples/0000.png").unlink()
    kept = (tmp_path / "a/00009/samples/0000.png").stat().st_mtime_ns
    assert sipo(*make, "--out", tmp_path / "a")[0] == 0
    assert {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.png")} == whole
    assert (tmp_path / "a/00009/samples/0000.png").stat().st_mtime_ns == kept
    code, _, complaints = sipo(*make, "--out", tmp_path / "a", "--seed", 5)
    assert code == 1
    assert "Choose another folder" in complaints


def test_rewritten_prompts_are_recorded(sipo, tmp_path, metadata, prompts):
    (tmp_path / "long.txt").write_text("".join(f"{entry['prompt']}\n" for entry in reversed(prompts)))
    out = tmp_path / "mini"
    make = ("geneval", "generate", "miniature", "--metadata", metadata, "--images-per-prompt", 1, *QUICK, "--out", out)
    assert sipo(*make, "--rewritten", tmp_path / "long.txt")[0] == 0
    samples = read_jsonl(out / "samples.jsonl")
    assert [sample["prompt"] for sample in samples] == [entry["prompt"] for entry in reversed(prompts)]
    assert [sample["metadata"] for sample in samples] == prompts
    assert json.loads((out / "00000/metadata.jsonl").read_text()) == prompts[0]
    _, printed, _ = sipo("geneval", "judge", out, "--detector", "miniature")
    assert "| rewritten | miniature |" in printed
    code, _, complaints = sipo(*make)
    assert code == 1
    assert "prompts: 'rewritten' there, 'raw' now" in complaints
    (tmp_path / "long.txt").write_text("one\n")
    assert "holds 1 prompts, the metadata 12" in sipo(*make, "--rewritten", tmp_path / "long.txt")[2]


def test_right_pictures_of_others_are_right_and_wrong_ones_wrong(sipo, tmp_path, prompts):
    right = foreign(tmp_path / "right", prompts, images=3)
    wrong = foreign(tmp_path / "wrong", prompts, shown=[*prompts[2:], *prompts[:2]])
    assert sipo("geneval", "judge", right, "--detector", "miniature")[0] == 0
    assert sipo("geneval", "judge", wrong, "--detector", "miniature")[0] == 0
    _, printed, _ = sipo("geneval", "table", right, wrong, "--format", "jsonl")
    good, bad = (json.loads(line) for line in printed.splitlines())
    assert list(good.values())[1:8] == [1] * 7
    assert bad["Overall"] < 0.2
    assert [good["Model"], good["prompts"]] == ["right", "not recorded"]


def test_missing_and_broken_pictures_are_named_counted_and_in_the_exit_status(sipo, tmp_path, prompts):
    folder = foreign(tmp_path / "others", prompts, images=2)
    (folder / "00003/samples/00001.png").unlink()
    (folder / "00001/samples/00000.png").write_bytes(b"no picture")
    code, printed, complaints = sipo("geneval", "judge", folder, "--detector", "miniature")
    assert code == 1
    assert "| others | 1.00 | 1.00 |" in printed
    assert "1 could not be read and were not judged: 00001/samples/00000.png (UnidentifiedImageError)" in complaints
    assert "1 are missing: 00003/samples: 1 of 2 pictures" in complaints
    summary = json.loads((folder / "geneval.json").read_text())
    assert (summary["images"], len(summary["unreadable"]), len(summary["missing"])) == (22, 1, 1)


def test_a_detector_and_clip_with_weights_of_their_own(sipo, tmp_path):
    """Tiny random weights: what they find means nothing, but the judgement must follow from it."""
    rng = np.random.default_rng(0)
    clauses = [{"class": name, "count": 1, "color": "red"} for name in CLASSES]
    entries = [{"tag": "colors", "include": [c], "prompt": f"a photo of a red {c['class']}"} for c in clauses]
    folder = foreign(tmp_path / "noise", entries, shown=[{"include": [{"class": "star", "count": 1}]}] * 3)
    for path in folder.rglob("*.png"):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    weights = tiny_detectors.owlv2(tmp_path / "owl"), tiny_detectors.clip(tmp_path / "clip")
    judge = ("geneval", "judge", folder, "--detector", "owlv2", "--weights", weights[0], "--color-weights", weights[1])
    code, printed, complaints = sipo(*judge, "--threshold", 0.2, "--device", "cpu", "--batch-size", 2)
    assert (code, complaints) == (0, "")
    assert "other detectors' scores mean something else" in " ".join(printed.split())
    assert f"| not recorded | owlv2 {weights[0]} |" in printed
    records = read_jsonl(folder / "results.jsonl")
    assert any(json.loads(record["details"]) for record in records)
    for record, name in zip(records, CLASSES, strict=True):
        boxes = json.loads(record["details"])
        assert all(score > 0.2 for group in boxes.values() for *_, score in group)
        assert f"expected {name} >= 1" in record["reason"] or name in boxes
        assert record["correct"] == (record["reason"] == "")
    summary = json.loads((folder / "geneval.json").read_text())
    assert summary["colors"] == str(weights[1])
    assert summary["thresholds"] == {"score": 0.2, "counting": 0.9, "max_per_class": 16, "max_overlap": 1.0}
    assert summary["overall"] is None


def mistakes(folder: Path, metadata: Path):
    judge, make = ("geneval", "judge", folder, "--detector"), ("geneval", "generate", "miniature", "--out", folder)
    return [
        (2, "--detector: 'yolo' is none of mask2former, owlv2", (*judge, "yolo")),
        (2, "--detector: miniature takes no weights", (*judge, "miniature", "--weights", "x")),
        (2, "the threshold score is a share between 0 and 1, not 30", (*judge, "miniature", "--threshold", 30)),
        (2, "device: 'gpu' is unknown", (*judge, "owlv2", "--device", "gpu")),
        (1, "weights: there is no ./absent", (*judge, "owlv2", "--weights", "./absent")),
        (2, "Missing option", ("geneval", "judge", folder)),
        (1, "is not in GenEval's layout", ("geneval", "judge", metadata.parent / "absent", "--detector", "miniature")),
        (1, "judge it first", ("geneval", "table", metadata.parent)),
        (2, "'html' is none of markdown, csv, jsonl", ("geneval", "table", folder, "--format", "html")),
        (1, "No prompt file at gone.jsonl", (*make, "--metadata", "gone.jsonl")),
        (2, "--images-per-prompt", (*make, "--metadata", metadata, "--images-per-prompt", 0)),
        (1, "was not made by this command", (*make, "--metadata", metadata)),
    ]  # fmt: skip


def test_mistakes_are_messages_and_exit_codes(sipo, tmp_path, metadata, prompts):
    folder = foreign(tmp_path / "others", prompts)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for code, message, arguments in mistakes(folder, metadata):
        found, _, complaints = sipo(*arguments)
        assert message in " ".join(complaints.split()), (arguments, complaints)
        assert found == code, arguments
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_video_models_are_refused(sipo, tmp_path, metadata, tiny_family):
    make = ("geneval", "generate", tiny_family("cogvideox-2b"), "--metadata", metadata, "--out", tmp_path / "x")
    code, _, complaints = sipo(*make)
    assert code == 1
    assert "makes videos; GenEval judges pictures" in complaints
