"""The build resumes exactly, keeps to its recipe, and leaves a pipeline with a record."""

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from sipo.errors import UserError
from sipo.mini import build as build_module
from sipo.mini.build import build
from sipo.mini.pipeline import load_pipeline
from sipo.mini.recipe import Recipe, UNetRecipe, VAERecipe
from sipo.mini.train_unet import encode_pool, snr_weight, train_unet
from sipo.mini.train_vae import train_vae
from sipo.mini.training import learning_rate

TINY = Recipe(
    vae=VAERecipe(num_steps=3, batch_size=2), unet=UNetRecipe(num_steps=4, batch_size=2, pool_size=6, warmup_steps=2)
)


class Stopped(Exception):
    pass


def stop_at(last):
    def report(step, metrics):
        if step == last:
            raise Stopped

    return report


def run_unet(folder, pool, report):
    return train_unet(TINY, pool, folder, "cpu", False, report, lambda step, average: None, save_every=2)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return train_vae(TINY, tmp_path_factory.mktemp("vae"), "cpu", False, lambda step, metrics: None)


def test_the_autoencoder_resumes_exactly(tmp_path, vae):
    with pytest.raises(Stopped):
        train_vae(TINY, tmp_path, "cpu", False, stop_at(3), save_every=1)
    resumed = train_vae(TINY, tmp_path, "cpu", False, lambda step, metrics: None, save_every=1)
    for name, tensor in vae.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert resumed.config.scaling_factor == vae.config.scaling_factor


def test_the_denoiser_resumes_exactly(tmp_path, vae):
    pool = encode_pool(TINY, vae, tmp_path, "cpu", False)
    assert pool["latents"].shape == (6, 4, 16, 16)
    whole = run_unet(tmp_path / "whole", pool, lambda step, metrics: None)
    with pytest.raises(Stopped):
        run_unet(tmp_path / "cut", pool, stop_at(3))
    resumed = run_unet(tmp_path / "cut", pool, lambda step, metrics: None)
    for part, tensors in whole.state().items():
        for name, tensor in tensors.items():
            assert torch.equal(resumed.state()[part][name], tensor), name


def test_build_writes_a_pipeline_and_refuses_another_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "GLANCE", 2)
    quiet = Console(quiet=True)
    record = build(tmp_path / "out", recipe=TINY, bf16=False, snapshot_every=2, num_scored=6, console=quiet)
    assert json.loads((tmp_path / "out" / "record.json").read_text()) == record
    assert record["steps"] == {"vae": 3, "unet": 4}
    assert set(record["scores"]) >= {"overall", "counting", "color_attr", "cleanliness"}
    assert load_pipeline(tmp_path / "out").vae.config.scaling_factor == record["scaling_factor"]
    with pytest.raises(UserError, match="another recipe"):
        build(tmp_path / "out", recipe=replace(TINY, seed=1), console=quiet)


def test_learning_rate_rises_holds_and_falls():
    rates = [learning_rate(step, 2.0, num_steps=100, warmup=10, decay_share=0.2) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:80] == [2.0] * 71
    assert rates[90] == pytest.approx(1.0)
    assert 0 < rates[99] == pytest.approx(0.1)


def test_snr_weight_turns_epsilon_loss_into_clipped_x0_loss():
    """min(SNR, g) / SNR is 1 where noise rules, and g / SNR where the picture does."""
    abar = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    expected = torch.tensor([5 / 9, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(snr_weight(abar, torch.tensor([0, 1, 2]), 5.0), expected)
