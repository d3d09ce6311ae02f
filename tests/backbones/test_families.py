"""Every family against its own diffusers pipeline: prediction, latents, schedule, samples."""

import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DiffusionPipeline
from safetensors.torch import load_file, save_file
from support.checkpoints import FAMILIES
from support.pipelines import call

from sipo.backbones import load_backbone
from sipo.config import DataConfig, ModelConfig
from sipo.errors import UserError
from sipo.schedule import FlowSchedule, VPSchedule

NEW = ["flux", "cogvideox-2b", "cogvideox-5b", "wan"]  # for newer ones see test_newer_families.py


def load(checkpoint, name, **keys):
    return load_backbone(ModelConfig(str(checkpoint), **keys), size=DataConfig("x", **FAMILIES[name][1]).size)


@pytest.fixture(params=NEW)
def family(request, tiny_family):
    return request.param, tiny_family(request.param)


def test_samples_are_those_of_plain_diffusers(family):
    name, checkpoint = family
    backbone = load(checkpoint, name)
    plain = DiffusionPipeline.from_pretrained(checkpoint)
    expected = call(plain, ["a cat", "a dog"], backbone.size, 3.5, 3, seeds=[3, 4])
    media = backbone.sampler(3, 3.5)(["a cat", "a dog"], [3, 4])
    for one, wanted in zip(media, expected, strict=True):
        frames, wanted = (one, wanted) if backbone.size.is_video else ([one], [wanted])
        assert len(frames) == backbone.size.num_frames
        # Our VAE decodes videos one by one, so that sums are rounded in another order: a level of 255 at most.
        for a, b in zip(frames, wanted, strict=True):
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= int(backbone.size.is_video)


def test_prediction_is_what_one_step_of_the_pipeline_uses(family):
    """From t = T, one sampler step without guidance ends at x0_hat, which on every path is a function of the prediction."""
    name, checkpoint = family
    backbone = load(checkpoint, name)
    shape = backbone.encode_media(torch.zeros(1, *backbone.size.pixel_shape)).shape
    noise = torch.randn(1, *shape[2:], generator=torch.Generator().manual_seed(0))
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    start, guidance = noise, 1.0
    if name == "flux":
        start, guidance = pipeline._pack_latents(noise, 1, *noise.shape[1:]), 3.5
    x0_hat = call(pipeline, ["a cat"], backbone.size, guidance, 1, latents=start, output_type="latent")
    if name == "flux":
        x0_hat = pipeline._unpack_latents(x0_hat, 16, 16, pipeline.vae_scale_factor)
    if isinstance(backbone.schedule, FlowSchedule):
        t, expected = pipeline.scheduler.timesteps[:1], (noise - x0_hat) / pipeline.scheduler.sigmas[0]
    else:  # abar = 0: v = -x0
        t, expected = torch.tensor([999]), -x0_hat
    prediction = backbone.predict(backbone.denoiser, noise, t, backbone.encode_prompts(["a cat"]))
    torch.testing.assert_close(prediction, expected, atol=1e-5, rtol=1e-4)


def test_latents_decode_to_what_the_vae_makes_of_its_own_mean(family):
    name, checkpoint = family
    backbone = load(checkpoint, name)
    pixels = torch.rand(2, *backbone.size.pixel_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments = backbone.encode_media(pixels)
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    layout = pixels.transpose(1, 2) if backbone.size.is_video else pixels
    posterior = pipeline.vae.encode(layout).latent_dist
    x0 = backbone.latents(moments, torch.zeros(moments.shape[:1] + moments.shape[2:]))
    if name == "flux":
        decoded = pipeline.vae.decode(x0 / 0.3611 + 0.1159).sample
    elif name == "wan":
        mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in ([-0.7, 0.2, 0.1, -0.3], [2.8, 1.4, 2.3, 1.9]))
        decoded = pipeline.vae.decode(x0 * std + mean).sample
    else:
        decoded = pipeline.decode_latents(x0)
    torch.testing.assert_close(decoded, pipeline.vae.decode(posterior.mean).sample, atol=1e-4, rtol=1e-4)


def test_latents_have_the_posterior_s_deviation(family):
    name, checkpoint = family
    backbone = load(checkpoint, name)
    moments = backbone.encode_media(torch.zeros(1, *backbone.size.pixel_shape))
    zeros = torch.zeros(moments.shape[:1] + moments.shape[2:])
    spread = backbone.latents(moments, zeros + 1) - backbone.latents(moments, zeros)
    scale = {"flux": 0.3611, "cogvideox-2b": 1.15258426, "cogvideox-5b": 0.7}.get(name)
    scale = 1 / torch.tensor([2.8, 1.4, 2.3, 1.9]).view(1, -1, 1, 1, 1) if scale is None else scale
    torch.testing.assert_close(spread, scale * torch.exp(moments[:, 1] / 2))


def test_flux_s_shift_follows_the_number_of_tokens(tiny_family):
    """mu is linear from 0.5 at 256 tokens to 1.15 at 4,096; diffusers' scheduler is the oracle for the sigmas."""
    backbone = load(tiny_family("flux"), "flux")
    mu = 0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256)
    assert backbone.schedule.shift == pytest.approx(math.exp(mu))
    scheduler = DiffusionPipeline.from_pretrained(tiny_family("flux")).scheduler
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 10, 10), mu=mu)
    u = torch.linspace(1, 0.1, 10, dtype=torch.float64)
    torch.testing.assert_close(backbone.schedule.shifted(u), scheduler.sigmas[:-1].double(), atol=1e-6, rtol=1e-6)


def test_wan_s_shift_is_the_scheduler_s(tiny_family):
    schedule = load(tiny_family("wan"), "wan").schedule
    assert (schedule.prediction, schedule.shift, schedule.num_train_timesteps) == ("flow", 3.0, 1000)


@pytest.mark.parametrize(("name", "first", "middle"), [("2b", 0.99745433, 0.0953281), ("5b", 0.99915, 0.24101878)])
def test_cogvideox_s_table_ends_at_zero(name, first, middle, tiny_family):
    """The published tables (../docs/method.md names their golden values), terminal SNR zero."""
    schedule = load(tiny_family(f"cogvideox-{name}"), f"cogvideox-{name}").schedule
    assert isinstance(schedule, VPSchedule)
    assert schedule.prediction == "v_prediction"
    assert schedule.alphas_cumprod[[0, 500, 999]].tolist() == pytest.approx([first, middle, 0.0], rel=1e-5, abs=1e-12)
    folder = tiny_family(f"cogvideox-{name}")
    oracle = CogVideoXDDIMScheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod
    torch.testing.assert_close(schedule.alphas_cumprod, oracle)


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("sd", {"resolution": 17}, "multiples of 4"),
        ("sd", {"num_frames": 9}, "makes images"),
        ("flux", {"resolution": (16, 18)}, "multiples of 4"),
        ("cogvideox-5b", {"num_frames": 8}, r"4 n \+ 1 frames"),
        ("cogvideox-2b", {"resolution": 20}, "multiples of 8"),
        ("wan", {"resolution": 24, "num_frames": 5}, "multiples of 16"),
        ("wan", {"resolution": 16, "num_frames": 6}, r"4 n \+ 1 frames"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name, asked, message, tiny_family):
    with pytest.raises(UserError, match=message):
        load_backbone(ModelConfig(str(tiny_family(name))), size=DataConfig("x", **asked).size)


def test_a_missing_component_is_named(tiny_family, tmp_path):
    broken = shutil.copytree(tiny_family("wan"), tmp_path / "wan")
    shutil.rmtree(broken / "text_encoder")
    with pytest.raises(UserError, match=r"lacks text_encoder, which its model_index\.json names"):
        load(broken, "wan")


def test_a_checkpoint_of_another_family_is_refused(tiny_family, tmp_path):
    broken = shutil.copytree(tiny_family("wan"), tmp_path / "wan")
    shutil.rmtree(broken / "transformer")
    shutil.copytree(tiny_family("flux") / "transformer", broken / "transformer")
    with pytest.raises(UserError, match="whose transformer is a WanTransformer3DModel; its own is a FluxTransf"):
        load(broken, "wan")


def test_weights_of_other_shapes_are_refused(tiny_family, tmp_path):
    broken = shutil.copytree(tiny_family("wan"), tmp_path / "wan")
    file = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["proj_out.weight"] = torch.zeros(3, 3)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not load as a WanPipeline"):
        load(broken, "wan")


@pytest.mark.parametrize(("of", "onto"), [("wan", "flux"), ("flux", "wan"), ("cogvideox-5b", "wan"), ("flux", "sd")])
def test_a_lora_of_another_model_is_refused(of, onto, tiny_family, tmp_path):
    from peft import LoraConfig

    backbone = load(tiny_family(of), of)
    config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    backbone.denoiser.add_adapter(config)
    backbone.save_lora(tmp_path, {n: w for n, w in backbone.denoiser.named_parameters() if "lora_" in n})
    load(tiny_family(of), of, lora=str(tmp_path))  # its own takes it
    with pytest.raises(UserError, match=r"does not fit this|holds no weight for"):
        load(tiny_family(onto), onto, lora=str(tmp_path))
