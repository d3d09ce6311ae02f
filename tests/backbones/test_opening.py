"""What is opened for sampling, by what names it."""

import numpy as np
import pytest
import yaml
from PIL import Image
from support.checkpoints import EDITING
from support.configs import changed
from support.pictures import encoded

from sipo.backbones.opening import open_for_sampling
from sipo.config import SampleConfig
from sipo.errors import UsageError


@pytest.fixture
def config_file(raw_config, tiny_family, tmp_path):
    """(*overrides, family) -> the path of a config of a tiny checkpoint."""

    def write(*overrides: str, family: str) -> str:
        raw = changed(raw_config, f"run={tmp_path / 'run'}", f"model.path={tiny_family(family)}", *overrides)
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
        return str(tmp_path / "mine.yaml")

    return write


def test_a_config_opens_the_model_that_it_names(config_file, tiny_family):
    path = config_file("sample.num_inference_steps=2", "sample.guidance_scale=3", family="sd")
    named, plain = open_for_sampling(path), open_for_sampling(str(tiny_family("sd")), False, 2, 3.0)
    assert named.settings == plain.settings
    assert named.settings["weights"] == "base"
    pictures = [np.asarray(each.sampler(["a prompt"], [0])[0]) for each in (named, plain)]
    assert np.array_equal(*pictures)


def test_a_config_that_names_the_pipeline_opens_another_task(config_file, tiny_family):
    """TI2V-5B's checkpoint names text to video; with a first frame it is asked for by `model.pipeline`."""
    size = [f"data.{key}={value}" for key, value in EDITING["wan2.2-5b-i2v"][1].items()]
    named = ("model.pipeline=WanImageToVideoPipeline", "sample.num_inference_steps=2")
    path = config_file(*named, *size, family="wan2.2-5b")
    opened = open_for_sampling(path)
    assert opened.settings["pipeline"] == "WanImageToVideoPipeline"
    assert "pipeline" not in open_for_sampling(str(tiny_family("wan2.2-5b"))).settings
    side = opened.backbone.size.height
    (frames,) = opened.sampler(["a prompt"], [0], [encoded(Image.effect_noise((side, side), 90).convert("RGB"))])
    assert len(frames) == opened.backbone.size.num_frames


def test_a_config_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no config file .*mine\.yaml"):
        open_for_sampling(str(tmp_path / "mine.yaml"))


def test_a_miniature_samples_with_its_own_settings(config_file, tiny_family):
    """A checkpoint without a config has those of a config without the section `sample`; what is asked for counts."""
    steps_and_scale = {
        path: {key: open_for_sampling(path, *asked).settings[key] for key in ("num_inference_steps", "guidance_scale")}
        for path, asked in (("miniature-video", ()), (str(tiny_family("sd")), ()), ("miniature", (False, 3, 0.0)))
    }
    assert [tuple(found.values()) for found in steps_and_scale.values()] == [
        (20, 2.0),
        (SampleConfig.num_inference_steps, SampleConfig.guidance_scale),
        (3, 0.0),
    ]
