"""What the config asks of the model's schedule and of the machine is checked together, before pairs and weights are read."""

import pytest
import torch
from rich.console import Console
from support.configs import changed

from sipo.backbones import read_architecture
from sipo.config import parse_config
from sipo.errors import UsageError
from sipo.train.fit import require_fit
from sipo.train.loop import train


def fit(raw: dict, *overrides: str) -> None:
    config = parse_config(changed(raw, *overrides))
    architecture = read_architecture(config.model)
    require_fit(config, architecture, architecture.size(config.data.size), torch.device("cpu"))


def test_everything_at_once_and_before_the_pairs(raw_config):
    raw = changed(raw_config, "kernel={name: flow_sde}", "timesteps={low: 0.5}", "train.mixed_precision=fp16",
                  "model.dtype=float16", "data.path=nowhere.parquet")  # fmt: skip
    with pytest.raises(UsageError) as error:
        train(parse_config(raw), Console(quiet=True))
    lines = str(error.value).splitlines()
    keys = ("kernel.name: FlowSDE", "timesteps: low = 0.5", "train.mixed_precision: fp16", "model.dtype: float16")
    assert [line.startswith(key) for line, key in zip(lines, keys, strict=True)] == [True] * 4


def test_a_model_with_fewer_timesteps(raw_config, tmp_path, tiny_sd):
    """The sections hold for every family; this model is told 100 timesteps by its scheduler."""
    import json
    import shutil

    shutil.copytree(tiny_sd, tmp_path / "sd")
    file = tmp_path / "sd" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_train_timesteps": 100}))
    model = f"model.path={tmp_path / 'sd'}"
    fit(raw_config, model, "kernel={num_inference_steps: 100}", "timesteps={low: 99, high: 100}")
    for override, message in (
        ("kernel={num_inference_steps: 101}", r"kernel.num_inference_steps: found 101; the model has 100"),
        ("timesteps={high: 101}", r"timesteps: low = 1.*, high = 101"),
    ):
        with pytest.raises(UsageError, match=message):
            fit(raw_config, model, override)


@pytest.mark.parametrize("family", ["flux", "wan", "sd", "cogvideox-5b"])
def test_what_suits_passes(raw_config, tiny_family, family):
    from support.checkpoints import FAMILIES

    size = [f"data.{key}={value}" for key, value in FAMILIES[family][1].items()]
    kernel = "{name: flow_sde}" if family in ("flux", "wan") else "{eta: 0.5}"
    fit(raw_config, f"model.path={tiny_family(family)}", *size, f"kernel={kernel}", "timesteps={low: 100, high: 900}")
