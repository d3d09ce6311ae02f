"""Trajectories: the package's sampler against diffusers' DDIM, decoding against the pipelines' own, and the densities."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from support.core import every_schedule, normal
from support.pictures import picture

from sipo.backbones import load_backbone
from sipo.backbones.trajectory import grid, guided, trajectory_sampler, walk
from sipo.config import DataConfig, ModelConfig
from sipo.data.media.load import load_pixels
from sipo.kernels import DDIM, transition
from sipo.rng import pair_randn
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.samples.trajectory import read_step, read_times, trajectory_of
from sipo.schedule import predict_x0_eps


def open_tiny(tiny_family, family: str):
    from support.checkpoints import EDITING, FAMILIES

    data = DataConfig("", **(FAMILIES | EDITING)[family][1])
    return load_backbone(ModelConfig(str(tiny_family(family))), size=data.size)


def test_the_grid_is_that_of_diffusers_ddim():
    schedule = every_schedule()["epsilon"]
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    theirs.set_timesteps(20)
    assert grid(schedule, 20).tolist() == [*theirs.timesteps.tolist(), 0]


def test_with_zero_terminal_snr_it_begins_where_no_data_is_left():
    schedule = every_schedule()["v_prediction"]
    times = grid(schedule, 10)
    assert times.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, 0]


def test_on_a_flow_path_its_steps_are_those_that_training_takes():
    times = grid(every_schedule()["flow"], 10)
    assert len(times) == 10
    assert times[0] == 1000
    assert (times.diff() < 0).all()


def test_steps_without_noise_are_diffusers_ddim():
    schedule = every_schedule()["epsilon"]
    theirs = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip
    theirs.set_timesteps(20)
    network = lambda x, t: torch.tanh(x * (1 + t.reshape(-1, 1, 1, 1) / 1000))  # noqa: E731
    x = normal(2, 4, 5, 5, seed=1).float()
    states = walk(network, schedule, DDIM(0.0), grid(schedule, 20), x, [1, 2])
    for state, t in zip(states[1:], theirs.timesteps, strict=True):
        x = theirs.step(network(x, t.expand(2)), t, x, eta=0.0).prev_sample
        torch.testing.assert_close(state, x, rtol=1e-4, atol=1e-5)


def test_the_noise_of_a_step_is_standard_normal_and_a_function_of_the_seed():
    """(x_s - mean) / std over many seeds; the same seed in another batch has the same states."""
    schedule, network = every_schedule()["epsilon"], lambda x, t: torch.zeros_like(x)
    x = torch.zeros(400, 1, 4, 4)
    times = torch.tensor([951, 901])
    states = walk(network, schedule, DDIM(), times, x, list(range(400)))
    *_, std = DDIM().coefficients(schedule, times[:1], times[1:])
    z = states[1] / std.float()
    assert abs(z.mean()) < 4 / math.sqrt(z.numel())
    assert abs(z.std() - 1) < 4 / math.sqrt(2 * z.numel())
    again = walk(network, schedule, DDIM(), times, x[:1], [7])
    assert again[1][0].equal(states[1][7])


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux", "cogvideox-5b", "wan"])
def test_decoding_is_the_pipelines_own(tiny_family, family):
    """Latents that the pipeline itself ends with, decoded by it and by the adapter."""
    backbone = open_tiny(tiny_family, family)
    moments = torch.zeros(1, 2, *backbone.adapter.latent_shape(backbone.size))
    moments[:, 0] = torch.randn(moments[:, 0].shape, generator=torch.Generator().manual_seed(3))
    x0 = backbone.adapter.latents(moments, torch.zeros_like(moments[:, 0]))
    with torch.no_grad():
        (made,) = backbone.adapter.decode(backbone.pipeline, x0)
        vae = backbone.pipeline.vae
        plain = moments[:, 0].transpose(1, 2) if family.startswith("cogvideox") else moments[:, 0]
        expected = vae.decode(plain).sample
    expected = ((expected / 2 + 0.5).clamp(0, 1) * 255).round().byte()[0]  # (3, H, W) or (3, F, H, W)
    frames = made if isinstance(made, list) else [made]
    expected = expected.unsqueeze(1) if expected.ndim == 3 else expected
    assert len(frames) == expected.shape[1]
    for number, frame in enumerate(frames):
        difference = np.asarray(frame).astype(int) - expected[:, number].permute(1, 2, 0).numpy()
        assert abs(difference).max() <= 1


def test_guidance_is_the_pipelines_own(tiny_sd):
    """Against a plain diffusers loop with DDIM, without noise, from the same latents."""
    backbone = load_backbone(ModelConfig(str(tiny_sd)))
    pipeline = DiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, steps_offset=1, set_alpha_to_one=False, clip_sample=False, timestep_spacing="leading"
    )
    x = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        ["a", "b"], latents=x, num_inference_steps=4, guidance_scale=5.0, height=16, width=16, output_type="latent"
    ).images
    text, empty = (backbone.encode_prompts(texts) for texts in (["a", "b"], ["", ""]))
    with torch.no_grad():
        states = walk(
            lambda x, t: guided(backbone, backbone.denoiser, x, t, text, empty, 5.0), backbone.schedule, DDIM(0.0),
            grid(backbone.schedule, 4), x, [0, 1],
        )  # fmt: skip
    torch.testing.assert_close(states[-1], theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["sd", "flux", "cogvideox-5b", "wan", "wan2.2-14b"])
def test_siblings_share_their_first_state_and_nothing_else(tiny_family, tmp_path, family):
    backbone = open_tiny(tiny_family, family)
    sampler = trajectory_sampler(backbone, DDIM(), 4, 3.0, siblings=2)
    items = [PromptItem(f"prompt {i // 2}", 10 + i) for i in range(4)]
    settings = {"fps": 8.0} if backbone.size.is_video else {}
    folder = generate(sampler, items, tmp_path / "out", settings, batch_size=3)
    suffix = "mp4" if backbone.size.is_video else "png"
    media = [folder / f"{i:05d}.{suffix}" for i in range(4)]
    assert all(trajectory_of(file).is_file() for file in media)
    times, recorded = read_times(media[0])
    assert recorded == {"kernel": "DDIM(eta=1.0)", "grid": "4", "guidance_scale": "3"}
    assert times == sorted(times, reverse=True)
    first, later = ([read_step(file, step) for file in media] for step in (0, 1))
    assert first[0][0].equal(first[1][0])
    assert not first[0][0].equal(first[2][0])
    assert not first[0][1].equal(first[1][1])
    assert all(a[1].equal(b[0]) for a, b in zip(first, later, strict=True))
    again = generate(sampler, items[:2], tmp_path / "again", settings, batch_size=1)
    torch.testing.assert_close(read_step(again / f"00001.{suffix}", 1), later[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["sd", "flux", "cogvideox-5b", "wan", "wan2.2-14b", "flux-kontext", "wan2.2-i2v"])
def test_a_step_has_the_density_of_the_policy_that_took_it(tiny_family, tmp_path, family):
    """From the files, as training reads them: x_s is the kernel's mean plus std times the noise that was drawn. A model that
    reads a source reads it with the prompt and without."""
    backbone = open_tiny(tiny_family, family)
    settings = {"fps": 8.0} if backbone.size.is_video else {}
    sources = [picture(seed, (24, 20)) for seed in (1, 2)] if backbone.architecture.takes_source else [None, None]
    items = [
        PromptItem(prompt, 6 + i, source=source) for i, (prompt, source) in enumerate(zip("ab", sources, strict=True))
    ]
    folder = generate(trajectory_sampler(backbone, DDIM(), 4, 3.0, 2), items, tmp_path / "out", settings)
    media = [folder / f"0000{i}.{'mp4' if backbone.size.is_video else 'png'}" for i in range(2)]
    times, _ = read_times(media[0])
    text, empty = (backbone.encode_prompts(texts) for texts in (["a", "b"], ["", ""]))
    if backbone.architecture.takes_source:
        pixels = torch.stack([load_pixels(source, backbone.size.picture).media for source in sources])
        text, empty = (given | backbone.encode_source(pixels, ["", ""]) for given in (text, empty))
    for step in range(len(times) - 1):
        xt, xs = torch.stack([read_step(file, step) for file in media]).unbind(1)
        now, then = (torch.tensor([times[i]] * 2) for i in (step, step + 1))
        if family in ("sd", "cogvideox-5b"):
            now, then = now.long(), then.long()
        with torch.no_grad():
            prediction = guided(backbone, backbone.denoiser, xt, now, text, empty, 3.0).float()
        x0, eps = predict_x0_eps(backbone.schedule, prediction, xt, now)
        taken = transition(DDIM(), backbone.schedule, x0, eps, now, then)
        z = pair_randn(xt.shape[1:], 0, step, torch.tensor([6, 7]), "step")
        torch.testing.assert_close((xs - taken.mean) / taken.std, z, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("family", "encoded"), [("flux-kontext", 1), ("wan2.2-i2v", 1), ("qwen-image-edit", 2)])
def test_a_source_is_encoded_once_unless_a_text_encoder_sees_it(tiny_family, monkeypatch, family, encoded):
    backbone, calls = open_tiny(tiny_family, family), []
    encode = type(backbone).encode_source
    monkeypatch.setattr(type(backbone), "encode_source", lambda *given: calls.append(given[2]) or encode(*given))
    pixels = torch.stack([load_pixels(picture(seed, (24, 20)), backbone.size.picture).media for seed in (1, 2)])
    with torch.no_grad(), backbone.encoders():
        found = backbone.condition_guided(["a", "b"], pixels)
        assert len(calls) == encoded
        for conditioning, prompts in zip(found, (["a", "b"], ["", ""]), strict=True):
            expected = backbone.condition(prompts, pixels)
            assert conditioning.keys() == expected.keys()
            assert all(torch.equal(conditioning[name], expected[name]) for name in expected)
