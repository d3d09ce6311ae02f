"""A rehearsal really trains: random weights of the checkpoint's shape, noise of its size, through the ordinary loop."""

import json
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support.checkpoints import FAMILIES
from support.newer_checkpoints import NEWER
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sipo.backbones import load_backbone
from sipo.backbones.random_weights import write_random_checkpoint
from sipo.config import ModelConfig, parse_config
from sipo.errors import UserError
from sipo.plan import rehearsal
from sipo.plan.gpus import GPUS
from sipo.plan.plan import make_plan
from sipo.plan.rehearsal import rehearse
from sipo.train.loop import train
from sipo.train.step import take_step

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


def counted(flops: list[int]):
    """A step that notes its floating-point operations, of attention on the CPU too, which torch leaves out."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    more = {
        attention: lambda q, k, v, *args, **keys: sdpa_flop_count(q, k, v),
        backward: lambda out, q, k, v, *args, **keys: sdpa_backward_flop_count(out, q, k, v),
    }

    def step(*args):
        with FlopCounterMode(display=False, custom_mapping=more) as counter:
            update = take_step(*args)
        flops.append(counter.get_total_flops())
        return update

    return step


@pytest.mark.parametrize("name", ["flux", *NEWER])
def test_a_rehearsal_computes_what_the_plan_says(name, raw_config, tiny_family, tmp_path, monkeypatch):
    """The FLOPs of its steps, and the weights that it makes and trains."""
    flops = []
    monkeypatch.setattr(rehearsal, "train", lambda config, console: train(config, console, counted(flops)))
    data = {**raw_config["data"], **FAMILIES[name][1], "cache": "elsewhere"}
    config = parse_config({**raw_config, "model": {"path": str(tiny_family(name))}, "data": data})
    plan = make_plan(config, GPUS["h100"], [1])
    found = rehearse(config, tmp_path, 2, QUIET)
    assert found.size == plan.size
    if name != "wan2.2-14b":  # whose samples take one of two networks, and a dropped one where a network gets none
        assert flops == [plan.step.total] * 2
    weights = [*tmp_path.glob("checkpoint/transformer*/*.safetensors")]
    assert sum(t.numel() for file in weights for t in load_file(file).values()) >= plan.parameters  # buffers too
    trained = [*tmp_path.glob("run-*/weights/**/*.safetensors")]
    assert sum(t.numel() for file in trained for t in load_file(file).values()) == plan.trained


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
