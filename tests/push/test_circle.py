"""From the hub and back, in processes of their own: base and pairs from it, a run to it, its card followed, its config run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.hub_server import MINE, stand_in

pytestmark = pytest.mark.slow

FOLLOW = """
import sys
import numpy, torch
card = sys.stdin.read()
found = {}
exec(card.split("```python")[1].split("```")[0], found)
pipeline = found["pipeline"]
pipeline.set_progress_bar_config(disable=True)
made = pipeline(["p"], generator=[torch.Generator().manual_seed(0)], num_inference_steps=3, guidance_scale=2.0, height=16, width=16)
made.images[0].save(sys.argv[1])
"""
KEYS = [
    "model.path=o/base", "data.workers=0", "data.resolution=16", "policy.rank=4", "policy.alpha=4", "train.num_steps=2", "train.batch_size=2",
    "train.learning_rate=0.1", "train.sample_every=2", "train.validate_every=0", "sample.num_prompts=1", "sample.num_inference_steps=2",
]  # fmt: skip


def test_there_and_back(tiny_sd, tiny_pairs, tmp_path):
    with stand_in() as hub:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": MINE, "HF_HUB_DISABLE_XET": "1"}
        env |= {"XDG_CACHE_HOME": str(tmp_path / "own"), "HF_HUB_DISABLE_TELEMETRY": "1"}

        def python(*arguments: str, text: str = "", status: int = 0, **more: str) -> str:
            done = subprocess.run(
                [sys.executable, *arguments], env=env | more, cwd=tmp_path, input=text, capture_output=True, text=True
            )
            assert done.returncode == status, done.stdout + done.stderr
            return done.stdout + done.stderr

        base = {
            file.relative_to(tiny_sd).as_posix(): file.read_bytes()
            for file in Path(tiny_sd).rglob("*")
            if file.is_file()
        }
        hub.model("o/base", base)
        commit = hub.data_set("o/pairs", {"data/train-00000-of-00001.parquet": tiny_pairs.read_bytes()}).branches[
            "main"
        ]

        printed = python("-m", "sipo", "train", "hf://datasets/o/pairs", *KEYS)
        assert f"hf://datasets/o/pairs at commit {commit}" in printed
        assert "complete: 2 steps" in python("-m", "sipo", "train", "hf://datasets/o/pairs", *KEYS, HF_HUB_OFFLINE="1")

        assert "me/aligned" in python("-m", "sipo", "push", "runs/pairs", "aligned", "--private")
        pushed = hub.repositories["models", "me/aligned"]
        assert pushed.private
        card = pushed.files["README.md"].decode()
        assert "base_model: o/base" in card

        python("-c", FOLLOW, "theirs.png", text=card)
        own = 'from sipo.backbones.opening import open_for_sampling; open_for_sampling("runs/pairs", False, 3, 2.0).sampler(["p"], [0])[0].save("ours.png")'
        python("-c", own)
        python("-c", own.replace("False", "True").replace("ours", "base"))
        difference = (
            "import sys, numpy; from PIL import Image; a, b = (numpy.asarray(Image.open(f)).astype(int) for f in sys.argv[1:]); "
            "print(abs(a - b).max())"
        )
        assert int(python("-c", difference, "ours.png", "theirs.png")) <= 1
        assert int(python("-c", difference, "ours.png", "base.png")) > 3

        python("-m", "sipo", "train", "hf://me/aligned", "run=again")
        one, two = (
            load_file(tmp_path / run / "weights" / "pytorch_lora_weights.safetensors")
            for run in ("runs/pairs", "again")
        )
        assert one.keys() == two.keys()
        assert all(one[key].equal(two[key]) for key in one)

        refused = python(
            "-m", "sipo", "train", "hf://me/aligned", "run=x", status=1, HF_TOKEN="hf_unknownUnknownUnknown"
        )
        assert "Traceback" not in refused
        assert "the hub does not know this token" in refused
