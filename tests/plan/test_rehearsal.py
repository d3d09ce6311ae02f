"""A rehearsal really trains: random weights of the checkpoint's shape, noise of its size, through the ordinary loop."""

import json

import pytest
from rich.console import Console
from support.checkpoints import FAMILIES

from sipo.backbones import load_backbone
from sipo.backbones.random_weights import write_random_checkpoint
from sipo.config import ModelConfig, parse_config
from sipo.errors import UserError
from sipo.plan.rehearsal import rehearse

QUIET = Console(quiet=True)


@pytest.mark.parametrize("name", ["sdxl", "flux", "wan"])
@pytest.mark.parametrize("cached", [True, False])
def test_a_few_steps_at_the_config_s_own_size(name, cached, raw_config, tiny_family, tmp_path):
    data = {**raw_config["data"], **FAMILIES[name][1], "cache": "elsewhere" if cached else None}
    raw = {**raw_config, "model": {"path": str(tiny_family(name))}, "data": data}
    found = rehearse(parse_config(raw), tmp_path, 3, QUIET)
    assert found.steps == 2
    assert found.seconds["total"] >= found.seconds["policy"] > 0
    assert found.memory > 10 * 2**20
    assert (found.size.height, found.size.num_frames) == (16, 5 if name == "wan" else 1)


def test_the_random_checkpoint_has_the_shapes_of_the_original(tiny_family, tmp_path):
    import torch

    write_random_checkpoint(ModelConfig(str(tiny_family("cogvideox-5b"))), tmp_path, torch.float32)
    of = [load_backbone(ModelConfig(str(folder))) for folder in (tiny_family("cogvideox-5b"), tmp_path)]
    shapes = [{name: weight.shape for name, weight in backbone.denoiser.state_dict().items()} for backbone in of]
    assert shapes[0] == shapes[1]
    assert of[0].schedule.alphas_cumprod.equal(of[1].schedule.alphas_cumprod)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "CogVideoXPipeline"


def test_a_model_of_unknown_shape_is_refused(tmp_path):
    import torch

    with pytest.raises(UserError, match="not shipped, and it is no local folder"):
        write_random_checkpoint(ModelConfig("somebody/something"), tmp_path, torch.float32)
