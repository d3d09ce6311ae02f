"""VBench through the real command line, on a tiny video model; a stand-in plays the official package."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
from support import command_line

from sipo.vbench.totals import DIMENSIONS, aggregate

ENTRIES = [  # of VBench_full_info.json
    {"prompt_en": "In a still frame, a stop sign", "dimension": ["temporal_flickering"]},
    {"prompt_en": "a red car", "dimension": ["color"]},
    {"prompt_en": "alley", "dimension": ["scene", "background_consistency"]},
]
RAW = {name: 0.5 + 0.01 * i for i, name in enumerate(DIMENSIONS)}

PACKAGE = """#!{python}
import json, os, shutil, sys
raw, broken = {raw!r}, {broken!r}
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
videos = given["--videos_path"]
if sys.argv[1] == "static_filter":
    out = os.path.join(given["--result_path"], "filtered_videos")
    os.makedirs(out)
    for name in sorted(os.listdir(videos)):
        if name.startswith("In a still frame") and int(name[:-4].rsplit("-", 1)[1]) < 5:
            shutil.copy(os.path.join(videos, name), out)
elif given["--dimension"] not in broken:
    os.makedirs(given["--output_path"], exist_ok=True)
    listed = [dict(video_path=os.path.join(videos, name), video_results=0.5) for name in sorted(os.listdir(videos))]
    with open(os.path.join(given["--output_path"], "results_2026-01-01-10:00:00_eval_results.json"), "w") as file:
        json.dump({{given["--dimension"]: [raw[given["--dimension"]], listed]}}, file)
"""
"""Its command line and its files (Vchitect/VBench: vbench/cli/); it ends with 0 whatever happens."""


@pytest.fixture
def sipo(monkeypatch, capfd):
    return partial(command_line.run, monkeypatch, capfd)


@pytest.fixture
def info(tmp_path) -> Path:
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(ENTRIES))
    return tmp_path / "VBench_full_info.json"


def environment(folder: Path, broken: tuple[str, ...] = ()) -> Path:
    program = folder / "bin" / "vbench"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(PACKAGE.format(python=sys.executable, raw=RAW, broken=broken))
    program.chmod(0o755)
    return folder


def cells(printed: str) -> dict[str, str]:
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| ")]
    return {row[1].strip(): row[2].strip() for row in rows[1:]}


def test_from_a_model_to_the_table(sipo, tmp_path, info, tiny_family):
    model, out = tiny_family("cogvideox-2b"), tmp_path / "tiny"
    make = ("vbench", "generate", model, "--prompts", info, "--out", out, "--num-inference-steps", 1,
            "--guidance-scale", 1, "--batch-size", 5)  # fmt: skip
    code, printed, _ = sipo(*make)
    assert (code, printed.splitlines()[-1]) == (0, f"35 videos in {out / 'videos'}")
    names = sorted(path.name for path in (out / "videos").iterdir())
    counts = {entry["prompt_en"]: 25 if "still" in entry["prompt_en"] else 5 for entry in ENTRIES}
    assert names == sorted(f"{prompt}-{i}.mp4" for prompt, count in counts.items() for i in range(count))
    before = {name: (out / "videos" / name).stat().st_mtime_ns for name in names}
    assert sipo(*make)[0] == 0  # again: nothing is made anew
    assert {name: (out / "videos" / name).stat().st_mtime_ns for name in names} == before

    env = environment(tmp_path / "env", broken=("color",))
    code, _, complaints = sipo("vbench", "run", out, "--environment", env)
    assert code == 1
    assert "VBench left no results for color: see above. What is done is kept." in complaints
    environment(tmp_path / "env")
    code, printed, _ = sipo("vbench", "run", out, "--environment", env)
    assert code == 0
    assert printed.count("--dimension") == 1  # of what was done before nothing
    (filtered,) = (out / "vbench/temporal_flickering").glob("*_eval_results.json")
    (videos,) = [value[1] for value in json.loads(filtered.read_text()).values()]
    assert len(videos) == 5
    shown = cells(printed)
    assert shown["color (semantic)"] == f"{100 * RAW['color']:.2f}"
    assert shown["**Total**"] == shown["human action (semantic)"] == "–"

    code, printed, complaints = sipo("vbench", "table", out)
    assert code == 1
    assert cells(printed) == shown
    assert "VBench's total needs its sixteen dimensions (missing: subject_consistency, motion_smoothness" in complaints
    code, _, complaints = sipo("vbench", "run", out, "--environment", env, "--dimension", "human_action")
    assert code == 2
    assert "no videos for human_action: they were made for background_consistency, temporal_flickering" in complaints


def test_videos_of_others_are_judged_in_all_dimensions_and_totalled(sipo, tmp_path):
    (tmp_path / "others/videos").mkdir(parents=True)
    for i in range(6):
        (tmp_path / f"others/videos/In a still frame, a stop sign-{i}.mp4").write_bytes(b"")
    env = environment(tmp_path / "env")
    assert sipo("vbench", "run", tmp_path / "others", "--environment", env)[0] == 0
    code, printed, complaints = sipo("vbench", "table", tmp_path / "others", tmp_path / "others")
    assert (code, complaints) == (0, "")
    expected = aggregate(RAW)
    for name, key in (("**Total**", "total"), ("**Quality**", "quality"), ("**Semantic**", "semantic")):
        assert cells(printed)[name] == f"{100 * expected[key]:.2f}"


def test_mistakes_are_messages_and_exit_codes(sipo, tmp_path, info, tiny_sd):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    make = ("vbench", "generate", tiny_sd, "--out", out, "--prompts")
    for code, message, arguments in [
        (1, "makes pictures; VBench judges videos", (*make, info)),
        (1, "There is no gone.json", (*make, "gone.json")),
        (1, "VBench has no dimension colour", (*make, info, "--dimension", "colour")),
        (1, "gone.txt cannot be read", (*make, info, "--rewritten", "gone.txt")),
        (2, "VBench has no dimension colour", ("vbench", "run", empty, "--environment", empty, "--dimension", "colour")),
        (1, "is not an environment with VBench", ("vbench", "run", empty, "--environment", empty)),
        (1, "holds no .mp4 file", ("vbench", "run", empty, "--environment", environment(tmp_path / "env"))),
        (2, "Invalid value for '--num-gpus'", ("vbench", "run", empty, "--environment", empty, "--num-gpus", 0)),
        (1, "There is no folder gone", ("vbench", "table", "gone")),
        (1, "missing: subject_consistency, background_consistency", ("vbench", "table", empty)),
    ]:  # fmt: skip
        found, _, complaints = sipo(*arguments)
        assert message in " ".join(complaints.replace("│", " ").split()), (arguments, complaints)
        assert found == code, arguments
    assert not out.exists()
