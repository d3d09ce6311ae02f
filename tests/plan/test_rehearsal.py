"""A rehearsal really trains: random weights of the checkpoint's shape, noise of its size, through the ordinary loop."""

import json
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from support.checkpoints import FAMILIES

from sipo.backbones import load_backbone
from sipo.backbones.random_weights import write_random_checkpoint
from sipo.config import ModelConfig, parse_config
from sipo.errors import UserError
from sipo.plan.rehearsal import rehearse

QUIET = Console(quiet=True)


def peak_of_process() -> int:
    """Bytes, as the kernel counts them (Linux: VmHWM in kB)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("name", ["sdxl", "flux", "wan"])
@pytest.mark.parametrize("cached", [True, False])
def test_a_few_steps_at_the_config_s_own_size(name, cached, raw_config, tiny_family, tmp_path):
    data = {**raw_config["data"], **FAMILIES[name][1], "cache": "elsewhere" if cached else None}
    raw = {**raw_config, "model": {"path": str(tiny_family(name))}, "data": data}
    before, start = peak_of_process(), time.perf_counter()
    found = rehearse(parse_config(raw), tmp_path, 3, QUIET)
    elapsed = time.perf_counter() - start
    assert found.steps == 2
    assert 0 < found.steps * found.seconds["total"] < elapsed
    if not torch.cuda.is_available():
        assert before <= found.memory <= peak_of_process()
    assert (found.size.height, found.size.num_frames) == (16, 5 if name == "wan" else 1)


def test_the_random_checkpoint_has_the_shapes_of_the_original(tiny_family, tmp_path):
    write_random_checkpoint(ModelConfig(str(tiny_family("cogvideox-5b"))), tmp_path, torch.float32)
    of = [load_backbone(ModelConfig(str(folder))) for folder in (tiny_family("cogvideox-5b"), tmp_path)]
    shapes = [{name: weight.shape for name, weight in backbone.denoiser.state_dict().items()} for backbone in of]
    assert shapes[0] == shapes[1]
    assert of[0].schedule.alphas_cumprod.equal(of[1].schedule.alphas_cumprod)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "CogVideoXPipeline"


def test_a_model_of_unknown_shape_is_refused(tmp_path):
    with pytest.raises(UserError, match="not shipped, and it is no local folder"):
        write_random_checkpoint(ModelConfig("somebody/something"), tmp_path, torch.float32)
