"""Wan 2.1 and 2.2 image to video against their own diffusers pipeline: the source's latents, CLIP's features, the networks' channels, samples."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from support.pictures import picture

from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.denoisers import networks_of
from sipo.config import DataConfig, ModelConfig
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import decode
from sipo.errors import UserError
from sipo.samples.sources import SourceSampler

SIDES, FRAMES = (16, 32), 9
PROMPTS = ["a cat jumps", "a dog runs"]


@pytest.fixture(scope="module", params=["wan2.1-i2v", "wan2.2-i2v"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(tiny_family, family):
    return str(tiny_family(family))


@pytest.fixture(autouse=True)
def no_ftfy(monkeypatch):
    """The pipeline's own way to clean a prompt requires ftfy; these prompts are clean."""
    clean = SimpleNamespace(fix_text=lambda text: text)
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.ftfy", clean, raising=False)


@pytest.fixture(scope="module")
def backbone(checkpoint):
    return load_backbone(ModelConfig(checkpoint), size=DataConfig("x", resolution=SIDES, num_frames=FRAMES).size)


@pytest.fixture(scope="module")
def sources() -> list[bytes]:
    """Encoded pictures of the model's sides, which are neither scaled nor cropped."""
    return [picture(seed, SIDES[::-1]) for seed in (50, 51)]


def pixels_of(backbone, sources) -> torch.Tensor:
    return torch.stack([load_pixels(source, backbone.size.picture).media for source in sources])


def plain(checkpoint: str, source: bytes, prompt: str, steps: int, **keys):
    """The pipeline's own call for one source, and what its networks were called with."""
    pipeline, seen = DiffusionPipeline.from_pretrained(checkpoint), []
    pipeline.set_progress_bar_config(disable=True)
    for network in filter(None, (pipeline.transformer, pipeline.transformer_2)):
        network.register_forward_pre_hook(lambda _, args, keys: seen.append(keys), with_kwargs=True)
    made = pipeline(
        decode(source), prompt, height=SIDES[0], width=SIDES[1], num_frames=FRAMES, num_inference_steps=steps, **keys
    ).frames[0]  # fmt: skip
    return made, seen


def test_the_networks_get_what_the_pipeline_gives_them(backbone, checkpoint, sources):
    """Of each sample: noise, mask, source, of 2.1 what CLIP sees; at each of three steps, by all transformers."""
    conditioning = backbone.encode_prompts(PROMPTS) | backbone.encode_source(pixels_of(backbone, sources), PROMPTS)
    shape = backbone.adapter.latent_shape(backbone.size)
    assert conditioning["source_latents"].shape == (2, *shape)
    ours = []
    handles = [
        network.register_forward_pre_hook(lambda _, args, keys: ours.append(keys), with_kwargs=True)
        for network in networks_of(backbone.denoiser)
    ]
    for number, (source, prompt) in enumerate(zip(sources, PROMPTS, strict=True)):
        generator = torch.Generator().manual_seed(number)
        _, theirs = plain(checkpoint, source, prompt, 3, guidance_scale=1.0, generator=generator, output_type="latent")
        assert len(theirs) == 3
        one = {name: value[number : number + 1] for name, value in conditioning.items()}
        for keys in theirs:
            ours.clear()
            xt = keys["hidden_states"][:, : shape[0]]
            backbone.predict(backbone.denoiser, xt, keys["timestep"], one)
            found = next(call for call in ours if call["hidden_states"].shape == keys["hidden_states"].shape)
            for name in ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_image", "timestep"):
                if keys[name] is None:
                    assert found[name] is None
                else:
                    torch.testing.assert_close(
                        found[name], keys[name], atol=2e-5, rtol=1e-4, check_dtype=name != "timestep"
                    )
    for handle in handles:
        handle.remove()
    assert ("encoder_hidden_states_image" in conditioning) == ("image_encoder" in backbone.family.extras)
    mask = theirs[0]["hidden_states"][0, shape[0] : -shape[0]]
    assert mask.unique().tolist() == [0.0, 1.0]


def test_a_batch_on_both_sides_of_the_boundary_predicts_what_each_sample_does(backbone, sources):
    """And where one transformer gets no sample, which then computes a smaller one, source included."""
    conditioning = backbone.encode_prompts(PROMPTS) | backbone.encode_source(pixels_of(backbone, sources), PROMPTS)
    xt = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([950.0, 100.0])
    together = backbone.predict(backbone.denoiser, xt, t, conditioning)
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in conditioning.items()}
        alone = backbone.predict(backbone.denoiser, xt[row : row + 1], t[row : row + 1], one)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


def test_every_part_of_the_source_reaches_the_prediction(backbone, sources):
    conditioning = backbone.encode_prompts(PROMPTS) | backbone.encode_source(pixels_of(backbone, sources), PROMPTS)
    xt = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([950.0, 100.0])
    own = backbone.predict(backbone.denoiser, xt, t, conditioning)
    for name in backbone.adapter.meta_source(1, backbone.size, torch.float32):
        swapped = {**conditioning, name: conditioning[name].flip(0)}
        other = backbone.predict(backbone.denoiser, xt, t, swapped)
        assert (other - own).abs().amax((1, 2, 3, 4)).min() > 1e-5, name


def test_the_planned_shapes_are_those_of_an_encoded_source(backbone, sources):
    planned = backbone.adapter.meta_source(2, backbone.size, torch.float32)
    encoded = backbone.encode_source(pixels_of(backbone, sources), PROMPTS)
    assert {n: (v.shape, v.dtype) for n, v in planned.items()} == {n: (v.shape, v.dtype) for n, v in encoded.items()}


def test_samples_are_those_of_plain_diffusers(backbone, checkpoint, sources):
    sampler = backbone.sampler(3, 2.0)
    assert isinstance(sampler, SourceSampler)
    assert sampler.size == backbone.size.picture
    made = sampler(PROMPTS, [3, 4], sources)
    for number, frames in enumerate(made):
        generator = torch.Generator().manual_seed(3 + number)
        expected, _ = plain(
            checkpoint, sources[number], PROMPTS[number], 3, guidance_scale=2.0, generator=generator, output_type="pil"
        )
        assert len(frames) == len(expected) == FRAMES
        for one, wanted in zip(frames, expected, strict=True):
            assert np.abs(np.asarray(one, int) - np.asarray(wanted, int)).max() <= 2  # our VAE decodes in slices


@pytest.mark.parametrize(
    ("family", "part", "change", "message"),
    [
        (
            "wan2.2-i2v",
            "transformer",
            {"in_channels": 4},
            r"its transformer reads 4 channels; expected 12, .* expand_timesteps",
        ),
        ("wan2.2-i2v", "transformer", {"image_dim": 8}, "CLIP too, .* names no image_encoder and no image_processor"),
        ("wan2.1-i2v", "transformer", {"image_dim": 8}, "features of width 8, .* image_encoder have width 16"),
        ("wan2.1-i2v", "transformer", {"pos_embed_seq_len": 10}, "a first and a last frame"),
        ("wan2.1-i2v", "", {"image_processor": [None, None]}, "names no image_processor"),
    ],
)
def test_what_reads_a_source_otherwise_is_refused(tiny_family, tmp_path, family, part, change, message):
    folder = shutil.copytree(tiny_family(family), tmp_path / "other")
    file = folder / part / ("config.json" if part else "model_index.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_architecture(ModelConfig(str(folder)))


def test_a_checkpoint_has_the_optional_parts_that_its_index_names(tiny_family):
    found = {
        name: read_architecture(ModelConfig(str(tiny_family(name)))).family for name in ("wan2.1-i2v", "wan2.2-i2v")
    }
    assert [(list(each.denoisers), list(each.extras)) for each in found.values()] == [
        (["transformer"], ["image_encoder"]), (["transformer", "transformer_2"], []),
    ]  # fmt: skip
