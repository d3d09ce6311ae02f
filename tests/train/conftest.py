"""accelerate keeps its state for the life of a process; every test here starts with a fresh one. Pairs of videos."""

import json

import pytest
from accelerate.state import AcceleratorState
from support.checkpoints import FAMILIES
from support.processes import CLIP
from support.videos import noise, video


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


@pytest.fixture
def config_of(raw_config, tiny_family, video_pairs, tmp_path):
    """(run, family, kind, sharding, **train) -> a config of 3 steps of 4 pairs, in two micro-steps."""

    def make(run: str, family: str, kind: str, sharding: str = "full", processes: int = 2, **keys) -> dict:
        data = {**raw_config["data"], **FAMILIES[family][1]}
        if family in ("wan", "cogvideox-5b"):
            data["path"] = str(video_pairs)
        keys = {"num_steps": 3, "batch_size": 2 // processes, "gradient_accumulation": 2, "checkpoint_every": 1,
                "keep_checkpoints": 9, "ema_decay": 0.5, "sharding": sharding, "max_grad_norm": CLIP,
                "epsilon": 0.01, "learning_rate": 1.0, **keys}  # fmt: skip
        return {**raw_config, "run": str(tmp_path / run), "model": {"path": str(tiny_family(family))}, "data": data,
                "policy": {"kind": kind, "rank": 4, "alpha": 8}, "train": {**raw_config["train"], **keys},
                "loss": {"name": "sipo", "beta": 0.01, "prune_threshold": 0.0}}  # fmt: skip

    return make
