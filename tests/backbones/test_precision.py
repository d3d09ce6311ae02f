"""Sampling in half precision: autocast is for the denoiser; encoders keep their own, and leave the device for a video."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.checkpoints import FAMILIES
from support.configs import changed

from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.opening import sampling_dtype
from sipo.config import DataConfig, ModelConfig, parse_config

VIDEO = ["cogvideox-2b", "wan"]


def load(checkpoint, name, dtype):
    return load_backbone(ModelConfig(str(checkpoint)), dtype=dtype, size=DataConfig("x", **FAMILIES[name][1]).size)


def dtypes_of(network, call, found):
    """Have the products inside `network` note their dtypes under `call`."""
    for part in network.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv3d):
            part.register_forward_hook(lambda _module, _inputs, output: found.setdefault(call, set()).add(output.dtype))


@pytest.mark.parametrize("name", FAMILIES)
def test_encoders_compute_in_their_own_precision_and_the_denoiser_in_that_of_autocast(tiny_family, name):
    backbone, found = load(tiny_family(name), name, torch.bfloat16), {}
    backbone.pipeline.vae.float()  # as SDXL's under float16, and Wan's always
    for part in backbone.family.text_encoders:
        getattr(backbone.pipeline, part).float()
        dtypes_of(getattr(backbone.pipeline, part), part, found)
    dtypes_of(backbone.pipeline.vae.decoder, "vae", found)
    dtypes_of(backbone.denoiser, "denoiser", found)
    backbone.sampler(1, 2.0)(['a "cat"'], [0])  # HunyuanVideo-1.5 reads what is quoted by an encoder of its own
    assert found.pop("denoiser") == {torch.bfloat16}
    assert found == {part: {torch.float32} for part in ("vae", *backbone.family.text_encoders)}


def test_a_vae_whose_activations_exceed_float16_makes_pictures_beside_a_denoiser_of_half(tiny_family):
    """As SDXL's do. Inside this one they are scaled far up, and its group norms scale them down again."""
    backbone = load(tiny_family("sdxl"), "sdxl", torch.bfloat16)
    vae = backbone.pipeline.vae.float()
    vae.decoder.conv_in.weight.data *= 1e7
    x0 = torch.randn(1, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    expected = np.asarray(backbone.adapter.decode(backbone.pipeline, x0)[0])
    with torch.autocast("cpu", torch.float16):
        found = np.asarray(backbone.adapter.decode(backbone.pipeline, x0)[0])
        assert not vae.decode.__wrapped__(x0).sample.isfinite().all()  # what autocast alone makes of it
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [*VIDEO, "sd"])
def test_text_encoders_are_away_while_a_video_is_made(tiny_family, name, monkeypatch):
    backbone, seen = load(tiny_family(name), name, torch.float32), []
    text = backbone.pipeline.text_encoder
    monkeypatch.setattr(text, "to", lambda device: seen.append(f"to {torch.device(device).type}"))
    text.register_forward_hook(lambda *_: seen.append("text"))
    backbone.denoiser.register_forward_hook(lambda *_: seen.append("denoiser"))
    backbone.sampler(2, 2.0)(["a cat"], [0])
    sides = list(dict.fromkeys(seen))  # prompts with and without text come first
    away = ["text", "to cpu", "denoiser"]
    assert sides == (["text", "denoiser", "to cpu"] if name == "sd" else away)  # a picture's: back at the end alone
    if name in VIDEO:
        assert seen.count("to cpu") == 2  # away and back to where the denoiser is, on a CPU the same
        assert seen[-1] == "to cpu"
        assert not backbone.denoiser._forward_pre_hooks


GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "own"),
    {"sd": torch.float16, "sdxl": torch.float16, "flux": torch.bfloat16, "cogvideox-2b": torch.bfloat16,
     "cogvideox-5b": torch.bfloat16, "wan": torch.bfloat16}.items(),
)  # fmt: skip
def test_without_a_run_a_gpu_samples_in_the_familys_precision(tiny_family, name, own):
    architecture = read_architecture(ModelConfig(str(tiny_family(name))))
    assert sampling_dtype(None, architecture, GPU) == own
    asked = read_architecture(ModelConfig(str(tiny_family(name)), dtype="float32"))
    assert sampling_dtype(None, asked, GPU) == torch.float32
    assert sampling_dtype(None, architecture, torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_run_is_sampled_in_the_precision_of_its_training(raw_config, precision, dtype):
    config = parse_config(changed(raw_config, f"train.mixed_precision={precision}"))
    architecture = read_architecture(config.model)
    assert sampling_dtype(config, architecture, GPU) == dtype
    with_weights = read_architecture(replace(config.model, dtype="float32"))
    assert sampling_dtype(config, with_weights, GPU) == dtype
    assert with_weights.model.frozen_dtype(dtype) == torch.float32
