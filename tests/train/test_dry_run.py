"""Every shipped experiment trains, for one step on a tiny checkpoint of its family, and can be planned.

The configs of an experiment differ in `loss` alone (config/test_shipped.py), and every family trains with every objective
(test_families.py), so one config an experiment, and the demo, stand for all.
"""

from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file
from support.checkpoints import EDITING, FAMILIES

from sipo.config import load_config
from sipo.plan.gpus import named_gpu
from sipo.plan.plan import make_plan
from sipo.train.loop import train

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
EXPERIMENTS = {"sd15": "sd", "sdxl": "sdxl", "flux": "flux", "cogvideox-2b": "cogvideox-2b",
               "cogvideox-5b": "cogvideox-5b", "wan": "wan", "sd35": "sd3", "qwen-image": "qwen-image", "z-image": "z-image",
               "flux2-klein": "flux2-klein", "wan2.2-5b": "wan2.2-5b", "wan2.2-5b-i2v": "wan2.2-5b-i2v", "wan2.2-14b": "wan2.2-14b",
               "hunyuan-video-1.5": "hunyuan-video-1.5", "flux-kontext": "flux-kontext", "wan2.1-i2v": "wan2.1-i2v", "wan2.2-i2v": "wan2.2-i2v",
               "ltx-2": "ltx2", "qwen-image-edit": "qwen-image-edit"}  # fmt: skip
SMALL = {"data.workers": 0, "data.cache": None, "data.validation": None, "train.num_steps": 1, "train.batch_size": 2,
         "train.gradient_accumulation": 1, "train.mixed_precision": "no", "train.sample_every": 0,
         "train.validate_every": 0, "log.tensorboard": False}  # fmt: skip


ONE_EACH = [
    pytest.param(p, id=p.stem, marks=() if p.stem.endswith(("sipo", "demo")) else pytest.mark.slow) for p in CONFIGS
]


@pytest.mark.usefixtures("small_sources")
@pytest.mark.parametrize("path", ONE_EACH)
def test_it_trains(path, tiny_family, tiny_pairs, video_pairs, editing_pairs, starting_videos, tmp_path):
    keys = {**SMALL, "run": str(tmp_path / "run"), "data.max_pairs": 8}
    stem = max((stem for stem in EXPERIMENTS if path.stem.startswith(stem)), key=len, default=None)
    family = EXPERIMENTS[stem] if stem else None
    if family:  # the miniature's configs have their own model and pairs, both small
        size = {"resolution": None, "num_frames": None, "fps": None, **{**FAMILIES, **EDITING}[family][1]}
        keys |= {f"data.{key}": value for key, value in size.items()}
        keys |= {"model.path": str(tiny_family(family)), "model.variant": None, "model.vae": None}
        videos, pictures = (starting_videos, editing_pairs) if family in EDITING else (video_pairs, tiny_pairs)
        keys["data.path"] = str(videos if family.startswith(("cogvideox", "wan", "hunyuan", "ltx")) else pictures)
    config = load_config(path, [f"{key}={yaml.safe_dump(value).split()[0]}" for key, value in keys.items()])
    run = train(config, Console(quiet=True))
    (line,) = run.read_metrics("train")
    assert np.isfinite([line["loss"], line["grad_norm"], line["mse_policy_chosen"]]).all()
    assert line["skipped"] == line["overflows"] == 0
    for file in run.weights.rglob("*.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(file).values())


@pytest.mark.parametrize("path", ONE_EACH)
def test_it_can_be_planned(path):
    plan = make_plan(load_config(path), named_gpu("h100"), [8])
    assert any(plan.fits(layout) for layout in plan.layouts)
