"""The build resumes exactly, keeps to its recipe, and leaves a pipeline with a record."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from rich.console import Console

from sipo.errors import UserError
from sipo.files import held
from sipo.mini import build as build_module
from sipo.mini.build import build
from sipo.mini.flow.networks import make_networks as make_flow_networks
from sipo.mini.kinds import STILL_KIND
from sipo.mini.pictures import encode_pool
from sipo.mini.pipeline import load_pipeline
from sipo.mini.recipe import Flaws, Recipe, Schedule
from sipo.mini.train_text import train_text
from sipo.mini.train_unet import draw_timesteps, make_networks, snr_weight, train_unet
from sipo.mini.train_vae import train_vae
from sipo.mini.training import load_state, make_optimizers, save_state, share_of_rate

TINY = Recipe(
    vae=Schedule(3, 2),
    text=Schedule(3, 2),
    clean=Schedule(4, 2, warmup_steps=2, ema=0.9),
    noisy=Schedule(2, 2, ema=0.9),
    pool_size=6,
)


class Stopped(Exception):
    pass


def stop_at(last):
    def report(step, metrics):
        if step == last:
            raise Stopped

    return report


def silent(step, metrics):
    pass


def same(networks, other):
    return all(torch.equal(other.state_dict()[name], tensor) for name, tensor in networks.state_dict().items())


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return train_vae(TINY, tmp_path_factory.mktemp("vae"), silent, "cpu", False)


def test_the_autoencoder_resumes_exactly(tmp_path, vae):
    with pytest.raises(Stopped):
        train_vae(TINY, tmp_path, stop_at(3), "cpu", False, save_every=1)
    resumed = train_vae(TINY, tmp_path, silent, "cpu", False, save_every=1)
    assert same(vae, resumed)
    assert resumed.config.scaling_factor == vae.config.scaling_factor


def test_the_text_encoder_resumes_exactly(tmp_path):
    whole = train_text(TINY, tmp_path / "whole", silent, "cpu", False)
    with pytest.raises(Stopped):
        train_text(TINY, tmp_path / "cut", stop_at(3), "cpu", False, save_every=1)
    assert same(whole, train_text(TINY, tmp_path / "cut", silent, "cpu", False, save_every=1))


def test_of_a_finished_stage_the_average_is_enough(tmp_path, vae):
    """So that its checkpoint can be kept small."""
    train_vae(TINY, tmp_path, silent, "cpu", False)
    state = load_state(tmp_path / "state.pt")
    save_state(tmp_path / "state.pt", {name: state[name] for name in ("step", "seconds", "average")})
    assert same(vae, train_vae(TINY, tmp_path, stop_at(1), "cpu", False))


def test_the_denoiser_resumes_exactly(tmp_path, vae):
    pool = encode_pool(tmp_path / "pool.safetensors", vae, TINY, Flaws(), "cpu", False)
    assert pool["latents"].shape == (6, 4, 16, 16)

    def run(folder, report):
        return train_unet(
            make_networks(0, "cpu"), TINY, TINY.clean, pool, tmp_path / folder, report, False, guided=True, save_every=2
        )

    whole = run("whole", silent)
    with pytest.raises(Stopped):
        run("cut", stop_at(3))
    assert same(whole, run("cut", silent))
    assert not same(whole, make_networks(0, "cpu"))


def test_a_stage_leaves_the_networks_it_starts_from_unchanged(tmp_path, vae):
    pool = encode_pool(tmp_path / "pool.safetensors", vae, TINY, Flaws(degraded=1.0), "cpu", False)
    start = make_networks(0, "cpu")
    trained = train_unet(start, TINY, TINY.noisy, pool, tmp_path, silent, False)
    assert same(start, make_networks(0, "cpu"))
    assert not same(start, trained)


def test_build_writes_a_pipeline_and_refuses_another_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "GLANCE", 6)
    quiet = Console(quiet=True)
    record = build(STILL_KIND, tmp_path / "out", recipe=TINY, bf16=False, snapshot_every=2, num_scored=6, console=quiet)
    assert json.loads((tmp_path / "out" / "record.json").read_text()) == record
    assert record["steps"] == {"vae": 3, "text": 3, "clean": 4, "noisy": 2}
    assert set(record["scores"]) >= {"overall", "counting", "color_attr", "cleanliness"}
    assert set(record["scores_before_noise"]) == set(record["scores"])
    assert load_pipeline(tmp_path / "out").vae.config.scaling_factor == record["scaling_factor"]
    with pytest.raises(UserError, match=r"vae.recipe.json was written for another recipe \(changed: seed\)"):
        build(STILL_KIND, tmp_path / "out", recipe=replace(TINY, seed=1), console=quiet)
    other = {**TINY.mixture, "single_object": 0.12, "two_object": 0.05}
    with pytest.raises(UserError, match=r"vae.recipe.json was written for another recipe \(changed: mixture\)"):
        build(STILL_KIND, tmp_path / "out", recipe=replace(TINY, mixture=other), console=quiet)
    with pytest.raises(UserError, match=r"noisy.recipe.json was written for another recipe \(changed: noisy_data\)"):
        build(STILL_KIND, tmp_path / "out", recipe=replace(TINY, noisy_data=Flaws(degraded=0.9)), console=quiet)


def test_one_build_at_a_time(tmp_path):
    refused = pytest.raises(UserError, match=r"work is in use by another build \(process \d+\)")
    with ProcessPoolExecutor(1, get_context("fork")) as other, held(tmp_path / "work", "build"), refused:
        other.submit(build, STILL_KIND, tmp_path / "out", tmp_path / "work", TINY).result()


@pytest.mark.slow
def test_the_denoiser_starts_from_the_stages_before(tmp_path, monkeypatch):
    """The clean stage gets the text stage's encoder, the noisy stage the clean stage's averaged networks."""
    starts = {}

    def remember(start, recipe, schedule, pool, folder, *rest):
        starts[folder.name] = start
        return train_unet(start, recipe, schedule, pool, folder, *rest)

    monkeypatch.setattr(build_module, "category_scores", lambda *given: {"overall": 0.0})
    kind = replace(STILL_KIND, train_denoiser=remember)
    build(kind, tmp_path / "out", tmp_path / "work", TINY, bf16=False, console=Console(quiet=True))
    text = torch.load(tmp_path / "work" / "text" / "state.pt", weights_only=True)["average"]
    for name, tensor in starts["clean"]["text_encoder"].state_dict().items():
        assert torch.equal(tensor, text[f"text_encoder.{name}"]), name
    clean = torch.load(tmp_path / "work" / "clean" / "state.pt", weights_only=True)["average"]
    for name, tensor in starts["noisy"].state_dict().items():
        assert torch.equal(tensor, clean[name]), name


def test_learning_rate_rises_holds_and_falls():
    schedule = Schedule(100, 1, warmup_steps=10, decay_share=0.2)
    shares = [share_of_rate(step, schedule) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:80] == [1.0] * 71
    assert shares[90] == pytest.approx(0.5)
    assert 0 < shares[99] == pytest.approx(0.05)


def test_muon_takes_the_matrices_inside_the_blocks_and_adamw_the_rest():
    networks = make_flow_networks(0, "cpu")
    (alone,) = make_optimizers(networks, Schedule(2, 1))
    adamw, muon = make_optimizers(networks, Schedule(2, 1, learning_rate=1e-3, muon=1e-2))
    assert (adamw.defaults["lr"], muon.defaults["lr"]) == (1e-3, 1e-2)
    rest, matrices = ({id(weight) for weight in each.param_groups[0]["params"]} for each in (adamw, muon))
    assert {id(weight) for weight in alone.param_groups[0]["params"]} == rest | matrices
    assert not rest & matrices
    transformer = networks["transformer"]
    assert id(transformer.single_transformer_blocks[0].proj_out.weight) in matrices
    assert id(transformer.x_embedder.weight) in rest
    assert id(transformer.single_transformer_blocks[0].proj_out.bias) in rest
    assert {id(weight) for weight in networks["text_encoder"].parameters()} <= rest


@pytest.mark.parametrize(("power", "above_950"), [(1.0, 0.05), (2.0, 0.05**0.5)])
def test_timesteps_are_spread_over_the_schedule_and_lean_to_noise_with_the_power(power, above_950):
    t = draw_timesteps(1000, power, torch.Generator().manual_seed(0))
    assert 0 <= t.min() < 10
    assert 990 < t.max() <= 999
    assert float((t >= 950).float().mean()) == pytest.approx(above_950, abs=0.003)
    few = [draw_timesteps(4, 1.0, torch.Generator().manual_seed(seed)) // 250 for seed in range(20)]
    assert all(sorted(each.tolist()) == [0, 1, 2, 3] for each in few)  # one in each quarter


def test_snr_weight_at_power_0_is_min_snr():
    """min(SNR, g) / SNR is 1 where noise rules, and g / SNR where the picture does."""
    abar = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    expected = torch.tensor([5 / 9, 1, 1], dtype=torch.float64)
    torch.testing.assert_close(snr_weight(abar, torch.tensor([0, 1, 2]), 5.0, 0.0), expected)


def test_snr_weight_at_power_one_half_counts_the_error_of_x0_by_the_root_of_the_snr():
    """The epsilon error is SNR times the error of x_0; the root meets the bound gamma at SNR = gamma^2."""
    snr = np.array([1e-2, 1.0, 4.0, 25.0, 100.0])
    abar = torch.tensor(snr / (1 + snr))
    of_x0 = snr_weight(abar, torch.arange(5), 5.0, 0.5).numpy() * snr
    np.testing.assert_allclose(of_x0, [0.1, 1.0, 2.0, 5.0, 5.0], rtol=1e-12)
