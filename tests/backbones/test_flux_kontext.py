"""FLUX.1-Kontext against its own diffusers pipeline: what it encodes, its tokens and their positions, prediction, samples."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from support.pictures import picture

from sipo.backbones import load_backbone
from sipo.config import DataConfig, ModelConfig
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import decode
from sipo.errors import UserError
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.samples.sources import SourceSampler

SIDES = (16, 24)  # height, width: rows and columns of tokens differ
PROMPTS = ["make it a cat", "make it a dog"]


@pytest.fixture(scope="module")
def checkpoint(tiny_family, tmp_path_factory):
    """With larger weights, so that eight bits of a pixel show which source a sample was made of."""
    pipeline = DiffusionPipeline.from_pretrained(tiny_family("flux-kontext"))
    with torch.no_grad():
        pipeline.vae.encoder.conv_out.weight *= 20
        for name, weight in pipeline.transformer.named_parameters():
            if name.endswith(("to_v.weight", "to_out.0.weight", "norm1.linear.weight", "norm.linear.weight")):
                weight *= 8
    folder = tmp_path_factory.mktemp("kontext")
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def backbone(checkpoint):
    return load_backbone(ModelConfig(checkpoint), size=DataConfig("x", resolution=SIDES).size)


@pytest.fixture(scope="module")
def sources() -> list[bytes]:
    """Encoded pictures of the model's size, which are neither scaled nor cropped."""
    return [picture(seed, SIDES[::-1]) for seed in (50, 51)]


def plain(pipeline, sources: list[bytes], steps: int, **keys):
    """The pipeline's own call, at our size. It would change height and width to an area of 1024 x 1024 pixels."""
    pipeline.set_progress_bar_config(disable=True)
    height, width = SIDES
    return pipeline(
        [decode(source) for source in sources], PROMPTS, height=height, width=width, num_inference_steps=steps,
        guidance_scale=3.5, max_area=height * width, _auto_resize=False, **keys,
    )[0]  # fmt: skip


def seen_by(network, call) -> dict:
    """What the network is called with, first."""
    seen = []
    handle = network.register_forward_pre_hook(lambda _, args, keys: seen.append(keys), with_kwargs=True)
    call()
    handle.remove()
    return seen[0]


def test_a_source_is_encoded_as_the_pipeline_does(backbone, checkpoint, sources):
    pixels = torch.stack([load_pixels(source, backbone.size).media for source in sources])
    found = backbone.encode_source(pixels, PROMPTS)
    expected = DiffusionPipeline.from_pretrained(checkpoint)._encode_vae_image(pixels, None)
    assert found.keys() == {"source_latents"}
    assert found["source_latents"].dtype == torch.float32
    torch.testing.assert_close(found["source_latents"], expected, atol=1e-6, rtol=1e-6)
    shapes = {
        name: (value.shape, value.dtype)
        for name, value in backbone.adapter.meta_source(2, backbone.size, torch.float32).items()
    }
    assert shapes == {name: (value.shape, value.dtype) for name, value in found.items()}


def test_the_network_gets_what_the_pipeline_gives_it(backbone, checkpoint, sources):
    """Tokens and positions of noise and source, timestep, guidance, texts; and from t = T one step ends at x0_hat, a function
    of the prediction."""
    noise = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    pixels = torch.stack([load_pixels(source, backbone.size).media for source in sources])
    conditioning = backbone.encode_prompts(PROMPTS) | backbone.encode_source(pixels, PROMPTS)
    pipeline, found = DiffusionPipeline.from_pretrained(checkpoint), []
    start = pipeline._pack_latents(noise, *noise.shape)
    theirs = seen_by(
        pipeline.transformer,
        lambda: found.append(plain(pipeline, sources, 1, latents=start, output_type="latent")),
    )
    t = pipeline.scheduler.timesteps[:1].expand(2)
    ours = seen_by(backbone.denoiser, lambda: found.append(backbone.predict(backbone.denoiser, noise, t, conditioning)))
    for name in ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "txt_ids"):
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=1e-5)
    assert torch.equal(ours["img_ids"], theirs["img_ids"])
    tokens = (SIDES[0] // 4) * (SIDES[1] // 4)
    assert ours["img_ids"][:, 0].tolist() == [0.0] * tokens + [1.0] * tokens
    x0_hat, prediction = found
    height, width = SIDES
    x0_hat = pipeline._unpack_latents(x0_hat, height, width, pipeline.vae_scale_factor)
    expected = (noise - x0_hat) / pipeline.scheduler.sigmas[0]
    torch.testing.assert_close(prediction, expected, atol=1e-4, rtol=1e-4)


def test_the_source_decides(backbone, sources):
    """Another source, another prediction: of each sample by its own."""
    noise = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    pixels = torch.stack([load_pixels(source, backbone.size).media for source in sources])
    text = backbone.encode_prompts(PROMPTS)

    def predict(pixels):
        conditioning = text | backbone.encode_source(pixels, PROMPTS)
        return backbone.predict(backbone.denoiser, noise, torch.tensor([500.0, 500.0]), conditioning)

    one, other = predict(pixels), predict(torch.stack([pixels[0], -pixels[1]]))
    torch.testing.assert_close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-3


def test_samples_are_those_of_plain_diffusers(backbone, checkpoint, sources):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    expected = plain(DiffusionPipeline.from_pretrained(checkpoint), sources, 3, generator=generators)
    sampler = backbone.sampler(3, 3.5)
    assert isinstance(sampler, SourceSampler)
    made = sampler(PROMPTS, [3, 4], sources)
    for one, wanted in zip(made, expected, strict=True):
        assert one.size == SIDES[::-1]
        assert np.abs(np.asarray(one, int) - np.asarray(wanted, int)).max() <= 1  # pixels travel as floats
    swapped = sampler(PROMPTS, [3, 4], sources[::-1])
    assert np.abs(np.asarray(made[0], int) - np.asarray(swapped[0], int)).max() > 4


def test_a_file_of_prompts_names_the_sources(backbone, tmp_path):
    """Relative to the file; each sample is made of its own source, whatever the batch, and a second call resumes."""
    (tmp_path / "media").mkdir()
    lines = []
    for n in range(3):
        (tmp_path / "media" / f"{n}.png").write_bytes(picture(n, (40, 30)))
        lines.append(f'{{"prompt": "prompt {n}", "source": "media/{n}.png", "tag": "t"}}\n')
    (tmp_path / "edits.jsonl").write_text("".join(lines))
    items = read_prompts(tmp_path / "edits.jsonl", seed=7)
    assert items[1] == PromptItem("prompt 1", 8, {"source": "media/1.png", "tag": "t"}, tmp_path / "media" / "1.png")
    sampler = backbone.sampler(2, 3.5)
    together = generate(sampler, items, tmp_path / "together", {"model": "m"}, batch_size=3)
    generate(sampler, items[:1], tmp_path / "alone", {"model": "m"}, batch_size=1)
    alone = generate(sampler, items, tmp_path / "alone", {"model": "m"}, batch_size=1)
    lines = [json.loads(line) for line in (together / "samples.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [str(item.source) for item in items]
    for n, item in enumerate(items):
        one, other = (np.asarray(Image.open(f / f"{n:05d}.png"), int) for f in (together, alone))
        assert np.abs(one - other).max() <= 1
        (own,) = sampler([item.prompt], [item.seed], [item.source])
        assert np.abs(np.asarray(own, int) - other).max() <= 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "b"}', r"prompt 2 \('b'\) has no source, a picture that this model reads; expected a \.jsonl"),
        ('{"prompt": "b", "source": "gone.png"}', r"the source of prompt 2: .*gone\.png: No such file"),
        ('{"prompt": "b", "source": "broken.png"}', r"the source of prompt 2: "),
    ],
)
def test_prompts_without_a_source_are_refused_before_the_first_sample(backbone, tmp_path, line, message):
    (tmp_path / "0.png").write_bytes(picture(0))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "edits.jsonl").write_text('{"prompt": "a", "source": "0.png"}\n' + line)
    with pytest.raises(UserError, match=message):
        generate(backbone.sampler(1, 3.5), read_prompts(tmp_path / "edits.jsonl"), tmp_path / "out", {"model": "m"}, 1)
    assert not (tmp_path / "out").exists()


def test_a_model_that_edits_nothing_ignores_the_key(tiny_family, tmp_path):
    """`source` has been metadata like any other."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "source": "PartiPrompts"}')
    flux = load_backbone(ModelConfig(str(tiny_family("flux"))), size=DataConfig("x", resolution=16).size)
    out = generate(flux.sampler(1, 3.5), read_prompts(tmp_path / "prompts.jsonl"), tmp_path / "out", {"model": "m"})
    assert (out / "00000.png").is_file()
    assert '"metadata": {"source": "PartiPrompts"}}' in (out / "samples.jsonl").read_text()  # and nothing after it
