"""Pairs of videos, and the configs of trainings in one process and two."""

import json

import pytest
from support.checkpoints import FAMILIES
from support.configs import changed
from support.pictures import picture
from support.runs import CLIP
from support.videos import noise, video

VIDEO = {"cogvideox-2b", "cogvideox-5b", "wan", "wan2.2-5b", "wan2.2-14b", "hunyuan-video-1.5", "ltx2"}


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


@pytest.fixture(scope="session")
def starting_videos(tmp_path_factory):
    """A manifest of 6 pairs of videos of 12 frames at 16 fps that begin with a picture of another shape, 3 prompts."""
    folder, lines = tmp_path_factory.mktemp("videos"), []
    for i in range(6):
        names = {"chosen": f"{i}-0.mp4", "rejected": f"{i}-1.mp4", "source": f"{i}.png"}
        for member in range(2):
            (folder / f"{i}-{member}.mp4").write_bytes(video(noise(12, (40, 32), seed=2 * i + member), fps=16))
        (folder / f"{i}.png").write_bytes(picture(i, (20, 34)))
        lines.append({"prompt": f"prompt {i % 3}", **names})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl"


@pytest.fixture
def family_config(raw_config, tiny_family, video_pairs, tmp_path):
    """(run, family, kind) -> a config of 3 steps of 2 pairs on a tiny checkpoint of the family."""

    def make(run: str, family: str, kind: str) -> dict:
        data = {**FAMILIES[family][1], "path": str(video_pairs)} if family in VIDEO else FAMILIES[family][1]
        return changed(
            raw_config, f"run={tmp_path / run}", f"model.path={tiny_family(family)}", f"policy.kind={kind}",
            "policy.alpha=8", "train.num_steps=3", "train.checkpoint_every=1",
            *(f"data.{key}={value}" for key, value in data.items()),
        )  # fmt: skip

    return make


@pytest.fixture
def config_of(family_config):
    """(run, family, kind, sharding, **train) -> a config of 3 steps of 4 pairs, in two micro-steps."""

    def make(run: str, family: str, kind: str, sharding: str = "full", processes: int = 2, **keys) -> dict:
        raw = family_config(run, family, kind)
        raw["loss"] = {"name": "sipo", "beta": 0.01, "prune_threshold": 0.0}
        raw["train"] |= {"batch_size": 2 // processes, "gradient_accumulation": 2, "keep_checkpoints": 9,
                         "ema_decay": 0.5, "sharding": sharding, "max_grad_norm": CLIP, "epsilon": 0.01,
                         "learning_rate": 1.0, **keys}  # fmt: skip
        return raw

    return make
