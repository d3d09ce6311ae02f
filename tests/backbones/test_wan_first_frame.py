"""Wan2.2 TI2V-5B with a given first frame against its own diffusers pipeline: what is given, what is trained, samples."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from support.pictures import picture

from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.family import standardized
from sipo.backbones.trajectory import trajectory_sampler
from sipo.config import DataConfig, ModelConfig
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import decode
from sipo.errors import UserError
from sipo.kernels import DDIM

SIDES, FRAMES = (32, 64), 9
PROMPTS = ["a cat jumps", "a dog runs"]
SIZE = DataConfig("x", resolution=SIDES, num_frames=FRAMES).size


@pytest.fixture(autouse=True)
def no_ftfy(monkeypatch):
    """The pipeline's own way to clean a prompt requires ftfy; these prompts are clean."""
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean", lambda text: text)


@pytest.fixture(scope="module")
def checkpoint(tiny_family):
    """As published: its model_index.json names the text-to-video pipeline."""
    return str(tiny_family("wan2.2-5b"))


@pytest.fixture(scope="module")
def backbone(checkpoint):
    return load_backbone(ModelConfig(checkpoint, pipeline="WanImageToVideoPipeline"), size=SIZE)


@pytest.fixture(scope="module")
def sources() -> list[bytes]:
    """Encoded pictures of the model's sides, which are neither scaled nor cropped."""
    return [picture(seed, SIDES[::-1]) for seed in (50, 51)]


@pytest.fixture(scope="module")
def conditioning(backbone, sources):
    pixels = torch.stack([load_pixels(source, backbone.size.picture).media for source in sources])
    return backbone.encode_prompts(PROMPTS) | backbone.encode_source(pixels, PROMPTS)


def plain(checkpoint: str, source: bytes, prompt: str, **keys):
    """The pipeline's own call for one source, what its network was called with, and the pipeline."""
    pipeline, seen = WanImageToVideoPipeline.from_pretrained(checkpoint), []
    pipeline.set_progress_bar_config(disable=True)
    pipeline.transformer.register_forward_pre_hook(lambda _, args, keys: seen.append(keys), with_kwargs=True)
    made = pipeline(decode(source), prompt, height=SIDES[0], width=SIDES[1], num_frames=FRAMES, **keys).frames
    return made, seen, pipeline


def one_of(conditioning, number: int):
    return {name: value[number : number + 1] for name, value in conditioning.items()}


def test_the_network_gets_what_the_pipeline_gives_it(backbone, checkpoint, sources, conditioning):
    """Of each sample, at each of three steps: the source's latents before x_t, and a timestep for each token, 0 for the source's."""
    ours = []
    handle = backbone.denoiser.register_forward_pre_hook(lambda _, args, keys: ours.append(keys), with_kwargs=True)
    for number, (source, prompt) in enumerate(zip(sources, PROMPTS, strict=True)):
        generator = torch.Generator().manual_seed(number)
        _, theirs, _ = plain(
            checkpoint,
            source,
            prompt,
            num_inference_steps=3,
            guidance_scale=1.0,
            generator=generator,
            output_type="latent",
        )
        assert len(theirs) == 3
        for keys in theirs:
            ours.clear()
            xt, t = keys["hidden_states"][:, :, 1:], keys["timestep"][:, -1]
            predicted = backbone.predict(backbone.denoiser, xt, t, one_of(conditioning, number))
            assert predicted.shape == xt.shape == (1, *backbone.adapter.latent_shape(backbone.size))
            for name in ("hidden_states", "encoder_hidden_states", "timestep"):
                torch.testing.assert_close(ours[0][name], keys[name], atol=2e-5, rtol=1e-4)
    handle.remove()
    per_frame = (SIDES[0] // 32) * (SIDES[1] // 32)
    assert theirs[0]["timestep"].count_nonzero() == 2 * per_frame  # of 3 latent frames


@torch.no_grad()
def test_a_sample_of_one_step_is_the_source_and_the_line_from_the_noise_of_its_seed(
    backbone, checkpoint, sources, conditioning
):
    """What training takes for x0, noise and velocity are the pipeline's: x0 = x_s - s v, behind the source's latents."""
    generator = torch.Generator().manual_seed(7)
    made, seen, pipeline = plain(
        checkpoint, sources[0], PROMPTS[0], num_inference_steps=1, guidance_scale=1.0, generator=generator,
        output_type="latent",
    )  # fmt: skip
    one, noise = one_of(conditioning, 0), backbone.initial_noise([7], torch.float32)
    torch.testing.assert_close(seen[0]["hidden_states"][:, :, 1:], noise)
    velocity = backbone.predict(backbone.denoiser, noise, seen[0]["timestep"][:, -1], one)
    torch.testing.assert_close(made[:, :, 1:], noise - pipeline.scheduler.sigmas[0] * velocity, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made[:, :, :1], one["source_latents"], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_members_are_trained_from_their_second_latent_frame_on(backbone, checkpoint):
    """The same VAE as in text to video: its first latent frame is the source's where a member begins with it, the others are x0."""
    text = load_backbone(ModelConfig(checkpoint), size=SIZE)
    pixels = torch.rand(2, FRAMES, 3, *SIDES, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = text.encode_media(pixels)
    torch.testing.assert_close(backbone.encode_media(pixels), whole[:, :, :, 1:])
    source = backbone.encode_source(pixels[:, 0], PROMPTS)["source_latents"]
    torch.testing.assert_close(source, standardized(whole[:, 0], backbone.adapter.vae)[:, :, :1], atol=1e-4, rtol=1e-3)


def test_the_source_reaches_every_frame_of_the_prediction(backbone, conditioning):
    xt = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([900.0, 100.0])
    own = backbone.predict(backbone.denoiser, xt, t, conditioning)
    swapped = {**conditioning, "source_latents": conditioning["source_latents"].flip(0)}
    other = backbone.predict(backbone.denoiser, xt, t, swapped)
    assert (other - own).abs().amax((1, 3, 4)).min() > 1e-5  # (B, f - 1)


def test_samples_are_those_of_plain_diffusers(backbone, checkpoint, sources):
    made = backbone.sampler(3, 2.0)(PROMPTS, [3, 4], sources)
    for number, frames in enumerate(made):
        generator = torch.Generator().manual_seed(3 + number)
        (expected,), _, _ = plain(
            checkpoint, sources[number], PROMPTS[number], num_inference_steps=3, guidance_scale=2.0, generator=generator,
            output_type="pil",
        )  # fmt: skip
        assert len(frames) == len(expected) == FRAMES
        for one, wanted in zip(frames, expected, strict=True):
            assert np.abs(np.asarray(one, int) - np.asarray(wanted, int)).max() <= 2  # our VAE decodes in slices


@torch.no_grad()
def test_a_trajectory_is_of_what_is_trained_and_its_video_begins_with_the_source(backbone, sources, conditioning):
    """The VAE is causal: whatever follows, the first frame is that of the source's latents decoded alone."""
    made = trajectory_sampler(backbone, DDIM(), 3, 2.0, 1)(PROMPTS, [3, 4], sources)
    alone = backbone.adapter.decode(backbone.pipeline, conditioning["source_latents"])
    for traced, (first,) in zip(made, alone, strict=True):
        assert traced.states.shape[1:] == backbone.adapter.latent_shape(backbone.size)
        assert len(traced.media) == FRAMES
        assert np.abs(np.asarray(traced.media[0], int) - np.asarray(first, int)).max() <= 2


def test_the_pipeline_of_the_config_says_whether_there_is_a_source(checkpoint, tiny_family):
    def family(path, pipeline=None):
        found = read_architecture(ModelConfig(str(path), pipeline=pipeline))
        return found.family.name, found.takes_source

    assert family(checkpoint) == ("WanPipeline", False)
    assert family(checkpoint, "WanImageToVideoPipeline") == ("WanImageToVideoPipeline", True)
    assert family(tiny_family("wan2.2-5b-i2v")) == ("WanImageToVideoPipeline", True)
    with pytest.raises(UserError, match=r"model\.pipeline is a WanVideo; supported are .*WanImageToVideoPipeline"):
        family(checkpoint, "WanVideo")


def test_what_leaves_nothing_to_train_or_reads_more_channels_is_refused(backbone, checkpoint, tmp_path):
    with pytest.raises(
        UserError, match=r"data\.num_frames: 1; the first frame of this model is given, so it takes 5 or more"
    ):
        backbone.architecture.size(DataConfig("x", resolution=SIDES, num_frames=1).size)
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"in_channels": 16}))
    with pytest.raises(UserError, match="reads 16 channels and its VAE has 6; with expand_timesteps"):
        read_architecture(ModelConfig(str(folder), pipeline="WanImageToVideoPipeline"))
