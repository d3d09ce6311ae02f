"""The newer families against their own diffusers pipelines: what the network predicts, latents, shifts, samples.

The pipeline's own loop is the oracle: its calls of the network are recorded, and brought into our layout by the
pipeline's own functions.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from support.checkpoints import FAMILIES
from support.newer_checkpoints import NEWER
from support.pipelines import call
from torch import Tensor

from sipo.backbones import Backbone, load_backbone, read_architecture
from sipo.config import DataConfig, ModelConfig

PROMPTS = ["a cat", 'a dog that sits on a "mat"']  # of different lengths; HunyuanVideo-1.5 reads what is quoted twice
close = torch.testing.assert_close


@dataclass(frozen=True)
class Layout:
    """How a pipeline hands (B, C, ...) of our layout to its loop, reads latents back, and what its network's output is."""

    pack: Callable[[DiffusionPipeline, Tensor], Tensor] = lambda pipeline, x: x
    unpack: Callable[[DiffusionPipeline, Tensor], Tensor] = lambda pipeline, x: x
    velocity: Callable[[DiffusionPipeline, Tensor], Tensor] = lambda pipeline, x: x


def pack_qwen(pipeline, x):
    return pipeline._pack_latents(x, *x.shape)


def unpack_qwen(pipeline, x):
    return pipeline._unpack_latents(x, 16, 16, pipeline.vae_scale_factor).squeeze(2)


def pack_ltx2(pipeline, x):
    return pipeline._pack_latents(x)


def unpack_ltx2(pipeline, x):
    return pipeline._unpack_latents(x, 2, 4, 4)


def stacked(pipeline, samples):
    """Z-Image's network gets and gives a list of samples (C, 1, h, w)."""
    return torch.stack(list(samples)).squeeze(2)


def unpack_klein(pipeline, x):
    """Klein's loop has (B, C, h, w), its network (B, h w, C)."""
    return pipeline._unpack_latents_with_ids(x, pipeline._prepare_latent_ids(torch.empty(len(x), 1, 4, 4)), 4, 4)


LAYOUTS = {
    "sd3": Layout(),
    "qwen-image": Layout(pack_qwen, unpack_qwen, unpack_qwen),
    "flux2-klein": Layout(unpack=unpack_klein, velocity=unpack_klein),
    "z-image": Layout(unpack=stacked, velocity=lambda pipeline, samples: -stacked(pipeline, samples)),
    "wan2.2-5b": Layout(),
    "wan2.2-14b": Layout(),
    "hunyuan-video-1.5": Layout(unpack=lambda pipeline, x: x[:, : pipeline.num_channels_latents]),
    "ltx2": Layout(pack_ltx2, unpack_ltx2, unpack_ltx2),
}


@pytest.fixture(scope="module", params=NEWER)
def opened(request, tiny_family) -> tuple[str, Backbone, DiffusionPipeline]:
    """The family's name, the backbone and the pipeline, of the same tiny checkpoint."""
    checkpoint = tiny_family(request.param)
    size = DataConfig("x", **FAMILIES[request.param][1]).size
    backbone = load_backbone(ModelConfig(str(checkpoint)), size=size)
    return request.param, backbone, DiffusionPipeline.from_pretrained(checkpoint)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_prediction_is_what_the_pipeline_s_loop_gets(opened):
    """Two steps without guidance of two prompts: each call of a network, against ours at the same x_t and t."""
    name, backbone, pipeline = opened
    layout, calls = LAYOUTS[name], []

    def record(network, args, keys, output):
        given = keys["hidden_states"] if "hidden_states" in keys else args[0]
        calls.append((given, output[0]))

    parts = [getattr(pipeline, part) for part in backbone.family.denoisers]
    hooks = [part.register_forward_hook(record, with_kwargs=True) for part in parts]
    noise = normal(2, *backbone.adapter.latent_shape(backbone.size))
    call(pipeline, PROMPTS, backbone.size, 1.0, 2, latents=layout.pack(pipeline, noise), output_type="latent")
    for hook in hooks:
        hook.remove()

    assert len(calls) == 2
    conditioning = backbone.encode_prompts(PROMPTS)
    for (given, output), t in zip(calls, pipeline.scheduler.timesteps, strict=True):
        xt, velocity = layout.unpack(pipeline, given), layout.velocity(pipeline, output)
        prediction = backbone.predict(backbone.denoiser, xt, t.expand(2), conditioning)
        close(prediction, velocity, atol=2e-6, rtol=1e-5)
        assert velocity.std() > 0.01
    close(layout.unpack(pipeline, calls[0][0]), noise)


@torch.no_grad()
def test_latents_decode_to_what_the_vae_makes_of_its_own_mean(opened):
    """Through the pipeline's own ending, its network silenced, so that the latents that go in are those that come out."""
    name, backbone, pipeline = opened
    pixels = torch.rand(1, *backbone.size.pixel_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments = backbone.encode_media(pixels)
    assert moments.shape == (1, 2, *backbone.adapter.latent_shape(backbone.size))
    x0 = backbone.latents(moments, torch.zeros(moments.shape[:1] + moments.shape[2:]))
    silent = [
        getattr(pipeline, part).register_forward_hook(lambda network, args, output: silenced(output))
        for part in backbone.family.denoisers
    ]
    ended = call(
        pipeline, PROMPTS[:1], backbone.size, 1.0, 1, latents=LAYOUTS[name].pack(pipeline, x0), output_type="np"
    )
    for hook in silent:
        hook.remove()
    layout = pixels.transpose(1, 2) if backbone.size.is_video else pixels
    own = pipeline.vae.decode(pipeline.vae.encode(add_frames(pipeline.vae, layout)).latent_dist.mode()).sample
    own = own.movedim(1, -1).squeeze(1) if own.ndim == 5 and not backbone.size.is_video else own.movedim(1, -1)
    expected = (own / 2 + 0.5).clamp(0, 1)
    close(torch.from_numpy(np.asarray(ended)), expected, atol=2e-5, rtol=1e-4)
    again = backbone.adapter.decode(pipeline, x0)[0]
    frames = np.stack([np.asarray(frame, int) for frame in (again if backbone.size.is_video else [again])])
    assert np.abs(frames - (expected[0].numpy() * 255).round()).max() <= 1


def silenced(output):
    """Zeros in the place of a network's output, a tuple whose first is a tensor or a list of them."""
    first = (
        [torch.zeros_like(each) for each in output[0]] if isinstance(output[0], list) else torch.zeros_like(output[0])
    )
    return (first, *output[1:])  # LTX-2's second is the audio's


def add_frames(vae, pixels: Tensor) -> Tensor:
    """Pictures as videos of one frame, for VAEs of videos."""
    return pixels.unsqueeze(2) if type(vae).__name__ == "AutoencoderKLQwenImage" else pixels


def test_latents_spread_as_the_vae_s_posterior(opened):
    """By the pipeline's own scaling, which is affine: the deviation of x0 is that of the VAE times its slope."""
    _, backbone, _ = opened
    moments = backbone.encode_media(torch.zeros(1, *backbone.size.pixel_shape))
    zeros = torch.zeros(moments.shape[:1] + moments.shape[2:])
    wider = moments.clone()
    wider[:, 0] += 1  # of the mean: x0 moves by the slope
    slope = backbone.latents(wider, zeros) - backbone.latents(moments, zeros)
    spread = backbone.latents(moments, zeros + 1) - backbone.latents(moments, zeros)
    close(spread, slope * torch.exp(moments[:, 1] / 2), atol=1e-5, rtol=1e-4)


def test_samples_are_those_of_plain_diffusers(opened):
    _, backbone, pipeline = opened
    expected = call(pipeline, PROMPTS, backbone.size, 3.0, 2, seeds=[3, 4])
    media = backbone.sampler(2, 3.0)(PROMPTS, [3, 4])
    for one, wanted in zip(media, expected, strict=True):
        frames, wanted = (one, wanted) if backbone.size.is_video else ([one], [wanted])
        assert len(frames) == backbone.size.num_frames
        # Our VAE decodes videos one by one, so that sums are rounded in another order: a level of 255 at most.
        for a, b in zip(frames, wanted, strict=True):
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= int(backbone.size.is_video)


@pytest.mark.parametrize(("name", "shift"), [("sd3", 3.0), ("z-image", 6.0), ("hunyuan-video-1.5", 5.0)])
def test_a_static_shift_is_the_scheduler_s(tiny_family, name, shift):
    """s = f u / (1 + (f - 1) u), which the scheduler applies to its own grid."""
    backbone = load_backbone(ModelConfig(str(tiny_family(name))))
    scheduler = DiffusionPipeline.from_pretrained(tiny_family(name)).scheduler
    u = torch.linspace(1, 0.1, 10)
    scheduler.set_timesteps(sigmas=u.tolist())
    close(backbone.schedule.shifted(u), scheduler.sigmas[:-1])
    assert (backbone.schedule.shift, backbone.schedule.num_train_timesteps) == (shift, 1000)


def test_qwen_image_s_shift_follows_the_number_of_tokens(tiny_family):
    """mu is linear from 0.5 at 256 tokens to 0.9 at 8,192; the pipeline's own sigmas are the oracle."""
    backbone = load_backbone(
        ModelConfig(str(tiny_family("qwen-image"))), size=DataConfig("x", resolution=(16, 32)).size
    )
    pipeline = DiffusionPipeline.from_pretrained(tiny_family("qwen-image"))
    call(pipeline, ["a cat"], backbone.size, 1.0, 10, output_type="latent")
    assert math.log(backbone.schedule.shift) == pytest.approx(0.5 + (0.9 - 0.5) * (4 * 8 - 256) / (8192 - 256))
    close(backbone.schedule.shifted(torch.linspace(1, 0.1, 10)), pipeline.scheduler.sigmas[:-1])


@pytest.mark.parametrize("name", ["qwen-image", "z-image", "hunyuan-video-1.5"])
def test_a_prompt_alone_has_the_embeddings_that_it_has_beside_a_longer_one(tiny_family, name):
    """Which caches rely on: they hold prompts one by one."""
    backbone = load_backbone(ModelConfig(str(tiny_family(name))), size=DataConfig("x", resolution=16).size)
    both, alone = backbone.encode_prompts(PROMPTS), backbone.encode_prompts(PROMPTS[:1])
    close(both["encoder_hidden_states"][:1], alone["encoder_hidden_states"], atol=1e-6, rtol=1e-5)
    assert both["lengths"].diff().tolist() == [len(PROMPTS[1]) - len(PROMPTS[0])]  # a token a character
    assert both["encoder_hidden_states"].shape == (2, 1000 if name == "hunyuan-video-1.5" else 512, 16)


@pytest.mark.parametrize(("is_distilled", "steps"), [(False, 50), (True, 4)])
def test_klein_s_shift_is_the_pipeline_s_at_its_usual_number_of_steps(tiny_family, is_distilled, steps):
    architecture = read_architecture(ModelConfig(str(tiny_family("flux2-klein"))))
    configs = {**architecture.configs, "model_index": {"is_distilled": is_distilled}}
    size = DataConfig("x", resolution=(16, 32)).size(architecture.sizes.native)
    shift = architecture.family.adapter(configs).schedule(size).shift
    pipeline = DiffusionPipeline.from_pretrained(tiny_family("flux2-klein"))
    call(pipeline, ["a cat"], size, 1.0, steps, output_type="latent")
    u = torch.linspace(1, 1 / steps, steps)
    close(shift * u / (1 + (shift - 1) * u), pipeline.scheduler.sigmas[:-1])


def test_a_distilled_klein_is_sampled_without_an_empty_prompt(tiny_family, tmp_path):
    folder = shutil.copytree(tiny_family("flux2-klein"), tmp_path / "distilled")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "is_distilled": True}))
    size = DataConfig("x", resolution=16).size
    distilled, base = (
        load_backbone(ModelConfig(str(each)), size=size) for each in (folder, tiny_family("flux2-klein"))
    )
    assert (distilled.is_distilled, base.is_distilled) == (True, False)
    calls = []
    for backbone in (distilled, base):
        backbone.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
        backbone.sampler(2, 3.0)(["a cat"], [0])
    assert len(calls) == 2 + 2 * 2
