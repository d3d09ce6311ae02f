"""accelerate keeps its state for the life of a process; every test here starts with a fresh one. Pairs of videos."""

import json

import pytest
from accelerate.state import AcceleratorState
from videos import noise, video


@pytest.fixture(autouse=True)
def fresh_accelerate_state():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def video_pairs(tmp_path_factory):
    """8 pairs of mp4 files of 12 frames at 16 fps, 3 prompts."""
    folder = tmp_path_factory.mktemp("videos")
    lines = []
    for i in range(8):
        for member in range(2):
            (folder / f"{i}-{member}.mp4").write_bytes(video(noise(18, (40, 32), seed=2 * i + member), fps=16))
        lines.append({"prompt": f"prompt {i % 3}", "chosen": f"{i}-0.mp4", "rejected": f"{i}-1.mp4"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl"
