"""Two processes with the same global batch train as one does, and launchers and a second training find their place."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from support.configs import changed
from support.newer_checkpoints import NEWER
from support.runs import recorded_step, train_in_two, train_raw

from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_two_processes_give_the_gradients_of_one(raw_config, tmp_path, kind):
    raw = changed(
        raw_config, f"policy={{kind: {kind}}}", "train.num_steps=1", "train.gradient_accumulation=2",
        "train.validate_every=1", "train.max_grad_norm=1e9", "data.validation=0.3", "data.prompt_dropout=0.5",
    )  # fmt: skip
    train_raw(changed(raw, f"run={tmp_path / 'one'}", "train.batch_size=4"), recorded_step)
    assert train_in_two(changed(raw, f"run={tmp_path / 'two'}"), step=recorded_step) == [0, 0]
    one, two = (load_file(tmp_path / name / "gradients-1.safetensors") for name in ("one", "two"))
    scale = max(gradient.abs().max() for gradient in one.values())
    assert scale > 0
    for name, gradient in one.items():
        difference = (two[name] - gradient).norm() / gradient.norm().clamp(min=1e-4 * scale)
        assert difference < 1e-5, f"{name}: {difference:.2e}"
    for line, other in zip(*(RunDir(tmp_path / name).read_metrics() for name in ("one", "two")), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)  # Adam's first step is the sign of a gradient


@pytest.mark.slow
@pytest.mark.parametrize("name", NEWER)
def test_newer_families_train_in_two_processes_as_in_one(config_of, name):
    """DDP waits for a gradient of every weight, and the text's stream of Qwen-Image's and HunyuanVideo-1.5's last block gets none."""
    raws = [config_of(run, name, "full", "none", number) for run, number in (("two", 2), ("one", 1))]
    assert train_in_two(raws[0]) == [0, 0]
    two, one = RunDir(raws[0]["run"]), train_raw(raws[1])
    for key in ("loss", "grad_norm"):
        found, expected = ([line[key] for line in run.read_metrics("train")] for run in (two, one))
        assert found == pytest.approx(expected, rel=1e-3)
    checkpoint = load_checkpoint(one.checkpoints, 3)
    assert (len(checkpoint.optimizer["state"]) < len(checkpoint.weights)) == (
        name in ("qwen-image", "hunyuan-video-1.5")
    )


@pytest.fixture
def with_dropout(raw_config, tiny_sd, tmp_path):
    """A config whose network drops half of its activations in training."""
    shutil.copytree(tiny_sd, tmp_path / "dropout")
    file = tmp_path / "dropout" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dropout": 0.5}))
    return changed(raw_config, f"model.path={tmp_path / 'dropout'}", "train.num_steps=2", "train.max_grad_norm=1e9")


def test_dropout_depends_on_the_micro_batch_and_not_on_the_rank(with_dropout, tmp_path):
    """Two micro-batches of one process after the other, and of two processes side by side: the same masks."""
    one = changed(with_dropout, f"run={tmp_path / 'one'}", "train.gradient_accumulation=2")
    two = changed(with_dropout, f"run={tmp_path / 'two'}")
    lines = train_raw(one, recorded_step).read_metrics("train")
    assert lines[0]["tie"] == 1.0  # reference and policy get the same masks, so they are equal at the start
    assert train_in_two(two, step=recorded_step) == [0, 0]
    for step in (1, 2):
        mine, theirs = (load_file(tmp_path / name / f"gradients-{step}.safetensors") for name in ("one", "two"))
        scale = max(gradient.abs().max() for gradient in mine.values())
        for name in mine:
            assert (mine[name] - theirs[name]).abs().max() < 1e-4 * scale, name
    without = train_raw(changed(one, f"run={tmp_path / 'without'}", f"model.path={with_dropout['model']['path']}"),
                        undropped)  # fmt: skip
    assert without.read_metrics("train")[0]["mse_policy_chosen"] != lines[0]["mse_policy_chosen"]


def undropped(t, step, stop):
    from sipo.train.step import take_step

    for module in t.engine.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return take_step(t, step, stop)


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_a_launcher_starts_its_processes(raw_config, tmp_path, launcher):
    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw_config))
    start = {
        "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        # Several processes on CPUs it starts by MPI alone, so there is one here.
        "accelerate": ["accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"],
    }[launcher]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    result = subprocess.run(
        [sys.executable, "-m", *start, "-m", "sipo", "train", str(tmp_path / "config.yaml")],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = RunDir(raw_config["run"])
    assert json.loads(run.env.read_text())["num_processes"] == (2 if launcher == "torchrun" else 1)
    assert all(weight.isfinite().all() for weight in load_checkpoint(run.checkpoints, 4).weights.values())


def test_a_training_leaves_the_process_as_it_found_it(raw_config, tmp_path):
    before = torch.get_num_threads(), torch.get_rng_state(), dict(os.environ)
    raw = changed(raw_config, "train.num_steps=1", "train.deterministic=true", "train.num_threads=2")
    train_raw(raw)
    assert torch.get_num_threads() == before[0]
    assert torch.get_rng_state().equal(before[1])
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before[2].get("CUBLAS_WORKSPACE_CONFIG")
    again = train_raw(changed(raw, f"run={tmp_path / 'again'}"))  # in the same process
    mine, theirs = (load_checkpoint(run.checkpoints, 1).weights for run in (RunDir(raw["run"]), again))
    assert all(mine[name].equal(theirs[name]) for name in mine)
