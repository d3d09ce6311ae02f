"""Qwen-Image-Edit and its successor against their own diffusers pipelines: what the text encoder sees, tokens, prediction, samples."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.folders import contents
from support.pictures import picture
from support.qwen_edit import patches, plain, positions

from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.qwen_image_edit import as_pictures
from sipo.backbones.qwen_processor import PictureProcessor
from sipo.backbones.random_weights import write_random_checkpoint
from sipo.config import DataConfig, ModelConfig
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import decode
from sipo.errors import UserError
from sipo.samples.sources import SourceSampler
from sipo.size import Size

SIDES = (32, 48)  # height, width: rows and columns of tokens differ
PROMPTS = ["make it a cat", "a dog"]  # of different lengths
FAMILIES = ["qwen-image-edit", "qwen-image-edit-plus"]
close = torch.testing.assert_close


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tiny_family, tmp_path_factory) -> str:
    """With larger weights, so that eight bits of a pixel show which source a sample was made of."""
    folder = tmp_path_factory.mktemp("edit") / "checkpoint"
    shutil.copytree(tiny_family(request.param), folder)
    pipeline = plain(folder)
    with torch.no_grad():
        pipeline.vae.encoder.conv_out.weight *= 20
        for name, weight in pipeline.transformer.named_parameters():
            if name.endswith(
                ("to_v.weight", "to_out.0.weight", "img_mod.1.weight", "norm_out.linear.weight", "proj_out.weight")
            ):
                weight *= 8
        for name, weight in pipeline.text_encoder.named_parameters():
            if "norm" not in name:
                weight *= 5
    for part in ("vae", "transformer", "text_encoder"):
        getattr(pipeline, part).save_pretrained(folder / part)
    return str(folder)


@pytest.fixture(scope="module")
def backbone(checkpoint):
    return load_backbone(ModelConfig(checkpoint), size=DataConfig("x", resolution=SIDES).size)


@pytest.fixture(scope="module")
def sources() -> list[bytes]:
    """Encoded pictures of the model's size, which are neither scaled nor cropped."""
    return [picture(seed, SIDES[::-1]) for seed in (50, 51)]


@pytest.fixture(scope="module")
def pixels(sources):
    return torch.stack([load_pixels(source, Size(*SIDES)).media for source in sources])


def each(pipeline, sources: list[bytes], steps: int, guidance: float, **keys) -> list:
    """The pipeline's own calls, at our size: one source each, which it takes alone."""
    height, width = SIDES
    lists = {name: values for name, values in keys.items() if isinstance(values, list)}
    keys = {name: value for name, value in keys.items() if name not in lists}
    return [
        pipeline(
            image=decode(source), prompt=prompt, height=height, width=width, num_inference_steps=steps,
            true_cfg_scale=guidance, negative_prompt=" " if guidance > 1 else None, **keys,
            **{name: values[n] for name, values in lists.items()},
        )[0][0]
        for n, (source, prompt) in enumerate(zip(sources, PROMPTS, strict=False))
    ]  # fmt: skip


def seen_by(network, call) -> list[dict]:
    """What the network is called with."""
    seen = []
    handle = network.register_forward_pre_hook(lambda _, args, keys: seen.append(keys), with_kwargs=True)
    call()
    handle.remove()
    return seen


def test_patches_are_those_of_the_published_preprocessing(tiny_family, sources):
    """And the same whichever files name them: of today's transformers, of older ones, of the checkpoint as it was published."""
    folder = Path(tiny_family("qwen-image-edit")) / "processor"
    text = "<|im_start|>a<|image_pad|>b<|image_pad|>"
    pictures = [decode(source).resize((150, 90)) for source in sources]
    found = PictureProcessor(folder)(text=[text], images=pictures)
    expected = [patches(each) for each in pictures]
    close(found["pixel_values"], torch.cat([values for values, _ in expected]), atol=2e-6, rtol=1e-5)
    assert (
        found["image_grid_thw"].tolist() == [[1, rows, columns] for _, (rows, columns) in expected] == [[1, 6, 10]] * 2
    )
    pieces = PictureProcessor(folder).tokenizer.convert_ids_to_tokens(found["input_ids"][0])
    assert pieces == ["<|im_start|>", "a", *["<|image_pad|>"] * 15, "b", *["<|image_pad|>"] * 15]


@pytest.mark.parametrize(
    "config",
    [
        {"image_processor_type": "Qwen2VLImageProcessorFast", "min_pixels": 3136, "max_pixels": 4 * 28 * 28},
        {"image_processor_type": "Qwen2VLImageProcessor", "size": {"shortest_edge": 3136, "longest_edge": 4 * 28 * 28}},
        {"image_processor": {"image_processor_type": "Qwen2VLImageProcessor", "max_pixels": 4 * 28 * 28}},
    ],
)
def test_the_files_of_every_version_of_transformers_are_read(tiny_family, sources, tmp_path, config):
    folder = tmp_path / "processor"
    shutil.copytree(Path(tiny_family("qwen-image-edit")) / "processor", folder)
    (folder / "preprocessor_config.json").unlink()
    (folder / ("processor_config.json" if "image_processor" in config else "preprocessor_config.json")).write_text(
        json.dumps(config)
    )
    large = decode(sources[0]).resize((280, 280))
    assert PictureProcessor(folder)(text=["<|image_pad|>"], images=large)["image_grid_thw"].tolist() == [[1, 4, 4]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [Size(*SIDES), Size(1024, 1024), Size(1472, 704)])
def test_a_source_is_scaled_as_the_pipeline_does(tiny_family, family, size):
    """To its own area, whatever the size of the samples: what its processor of pictures is asked for, before anything is encoded."""
    adapter, pipeline = read_architecture(ModelConfig(str(tiny_family(family)))).adapter, plain(tiny_family(family))
    asked = {}

    class Encoding(Exception):
        """What would follow."""

    def resize(image, height, width):
        asked["seen"] = height, width
        return image

    def preprocess(image, height, width):
        asked["encoded"] = height, width
        raise Encoding

    pipeline.image_processor.resize, pipeline.image_processor.preprocess = resize, preprocess
    with pytest.raises(Encoding):
        pipeline(Image.new("RGB", (size.width, size.height)), "a", height=size.height, width=size.width)
    assert (adapter.seen_sides(size), adapter.encoded_sides(size)) == (asked["seen"], asked["encoded"])
    rows, columns = (round(side / 28) for side in asked["seen"])
    assert adapter.source_tokens(size) == rows * columns


def packed(pipeline, latents):
    return pipeline._pack_latents(latents, *latents.shape)


@pytest.mark.usefixtures("small_sources")
def test_what_is_read_of_a_source_is_what_the_pipeline_gives_its_network(backbone, checkpoint, sources, pixels):
    found, pipeline = backbone.encode_source(pixels[:1], PROMPTS[:1]), plain(checkpoint)
    (seen,) = seen_by(pipeline.transformer, lambda: each(pipeline, sources[:1], 1, 1.0, output_type="latent"))
    length = int(found["lengths"][0])
    close(found["encoder_hidden_states"][:, :length], seen["encoder_hidden_states"], atol=1e-4, rtol=1e-4)
    assert not found["encoder_hidden_states"][:, length:].any()
    tokens = packed(pipeline, found["source_latents"])
    close(seen["hidden_states"][:, -tokens.shape[1] :], tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("small_sources")
def test_shapes_are_known_without_weights(backbone, pixels):
    found = backbone.encode_source(pixels, PROMPTS)
    expected = backbone.adapter.meta_source(2, backbone.size, torch.float32)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        name: (value.shape, value.dtype) for name, value in expected.items()
    }
    assert backbone.encode_prompts(PROMPTS) == backbone.adapter.meta_prompts(2, torch.float32) == {}


@pytest.mark.usefixtures("small_sources")
def test_the_prediction_is_what_the_pipeline_s_loop_gets(backbone, checkpoint, sources, pixels):
    """Two steps of each of two edits: every call of the network, against ours of both at once at the same x_t and t. The shorter
    text is masked here, and alone there."""
    pipeline, calls = plain(checkpoint), []
    pipeline.transformer.register_forward_hook(
        lambda _, args, keys, output: calls.append((keys, output[0])), with_kwargs=True
    )
    noise = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    starts = [packed(pipeline, start[None]) for start in noise]
    each(pipeline, sources, 2, 1.0, latents=starts, output_type="latent")
    conditioning = backbone.encode_source(pixels, PROMPTS)
    assert len(set(conditioning["lengths"].tolist())) == 2
    tokens = starts[0].shape[1]

    def unpacked(found):
        return pipeline._unpack_latents(found[:, :tokens], *SIDES, pipeline.vae_scale_factor).squeeze(2)

    for step, t in enumerate(pipeline.scheduler.timesteps):
        theirs = calls[step], calls[2 + step]
        xt = torch.cat([unpacked(keys["hidden_states"]) for keys, _ in theirs])
        velocity = torch.cat([unpacked(output) for _, output in theirs])
        (ours,) = seen_by(
            backbone.denoiser, lambda xt=xt, t=t: backbone.predict(backbone.denoiser, xt, t.expand(2), conditioning)
        )
        close(ours["hidden_states"], torch.cat([keys["hidden_states"] for keys, _ in theirs]), atol=2e-5, rtol=1e-5)
        assert ours["img_shapes"] == [theirs[0][0]["img_shapes"][0]] * 2
        assert ours["timestep"].tolist() == pytest.approx([keys["timestep"].item() for keys, _ in theirs], rel=1e-6)
        close(backbone.predict(backbone.denoiser, xt, t.expand(2), conditioning), velocity, atol=2e-5, rtol=1e-4)
        assert velocity.std() > 0.01


@pytest.mark.usefixtures("small_sources")
def test_the_source_decides_twice(backbone, pixels):
    """By its latents, and by what the text encoder saw of it: each sample by its own."""
    noise = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    own = backbone.encode_source(pixels, PROMPTS)
    other = backbone.encode_source(torch.stack([pixels[0], -pixels[1]]), PROMPTS)

    def predict(conditioning):
        return backbone.predict(backbone.denoiser, noise, torch.tensor([500.0, 500.0]), conditioning)

    before = predict(own)
    for name in ("source_latents", "encoder_hidden_states"):
        after = predict(own | {name: other[name]})
        close(before[0], after[0], atol=1e-5, rtol=1e-4)
        assert (before[1] - after[1]).abs().max() > 1e-4, name


@pytest.mark.usefixtures("small_sources")
def test_what_is_read_of_a_source_depends_on_its_prompt(backbone, pixels):
    """And on no other of the batch."""
    both = backbone.encode_source(pixels, PROMPTS)
    (alone,) = (backbone.encode_source(pixels[1:], PROMPTS[1:]),)
    for name, value in alone.items():
        close(value, both[name][1:], atol=1e-5, rtol=1e-5)
    other = backbone.encode_source(pixels[1:], PROMPTS[:1])
    close(other["source_latents"], alone["source_latents"])
    assert (other["encoder_hidden_states"] - alone["encoder_hidden_states"]).abs().max() > 1e-3


@pytest.mark.usefixtures("small_sources")
def test_the_end_of_a_long_prompt_is_cut_off(backbone, pixels):
    """512 tokens besides the picture's; those before the cut do not depend on what follows it."""
    limit = 512 + backbone.adapter.source_tokens(backbone.size)
    long, longer = (backbone.encode_source(pixels[:1], ["x" * 600 + more]) for more in ("", "y"))
    assert long["lengths"].tolist() == [limit] == [long["encoder_hidden_states"].shape[1]]
    close(long["encoder_hidden_states"], longer["encoder_hidden_states"], atol=1e-5, rtol=1e-5)


def test_a_prompt_cannot_name_a_picture_of_its_own(backbone, pixels):
    with pytest.raises(
        UserError, match=r"'a <\|image_pad\|>' holds <\|image_pad\|>, which stands for the source; remove it"
    ):
        backbone.encode_source(pixels[:1], ["a <|image_pad|>"])


@pytest.mark.usefixtures("small_sources")
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_samples_are_those_of_plain_diffusers(backbone, checkpoint, sources, guidance):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    expected = each(plain(checkpoint), sources, 3, guidance, generator=generators)
    sampler = backbone.sampler(3, guidance)
    assert isinstance(sampler, SourceSampler)
    made = sampler(PROMPTS, [3, 4], sources)
    for one, wanted in zip(made, expected, strict=True):
        assert one.size == SIDES[::-1]
        assert np.abs(np.asarray(one, int) - np.asarray(wanted, int)).max() <= 1
    swapped = sampler(PROMPTS, [3, 4], sources[::-1])
    assert np.abs(np.asarray(made[0], int) - np.asarray(swapped[0], int)).max() > 4


@pytest.mark.usefixtures("small_sources")
def test_encoders_that_come_from_disk_read_the_same(backbone, checkpoint, pixels):
    """With their processor, which is not in memory either while they are not."""
    bare = load_backbone(ModelConfig(checkpoint), encoders=False, size=DataConfig("x", resolution=SIDES).size)
    assert bare.pipeline.processor is None
    with bare.encoders():
        found = bare.encode_source(pixels, PROMPTS)
    assert bare.pipeline.processor is None
    for name, value in backbone.encode_source(pixels, PROMPTS).items():
        assert torch.equal(value, found[name])
    assert "processor" in bare.fingerprint()


@pytest.mark.usefixtures("small_sources")
def test_positions_of_a_picture_are_its_rows_and_columns(tiny_family, pixels):
    """Where nothing tells transformers which tokens are a picture's, it counts them as text: other numbers, and no error. Once
    diffusers' own pipelines tell it, this test fails, and the hook can go."""
    assert positions([7, 9, 9, 9, 9, 9, 9, 7, 7], 9, 2, 3).squeeze(1).tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5], [0, 1, 1, 1, 2, 2, 2, 4, 5], [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]  # fmt: skip
    folder = tiny_family("qwen-image-edit")
    backbone = load_backbone(ModelConfig(str(folder)), size=DataConfig("x", resolution=SIDES).size)
    height, width = backbone.adapter.seen_sides(backbone.size)
    seen = as_pictures(pixels)[0].resize((width, height), Image.Resampling.LANCZOS)
    read = backbone.encode_source(pixels[:1], PROMPTS[:1])
    ours = read["encoder_hidden_states"][0, : int(read["lengths"][0])]
    placed, counted = (plain(folder, placed).encode_prompt(PROMPTS[0], image=seen)[0][0] for placed in (True, False))
    close(ours, placed, atol=1e-5, rtol=1e-5)
    assert (ours - counted).abs().max() > 100 * (ours - placed).abs().max()


def test_pixels_in_eight_bits_come_back_as_they_were(sources, pixels):
    for one, source in zip(as_pictures(pixels), sources, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(decode(source)))


@pytest.mark.usefixtures("small_sources")
def test_the_whole_pipeline_is_written_as_diffusers_reads_it(backbone, checkpoint, tmp_path):
    """Its processor's files as they were, under the name of transformers' own class."""
    weights = {name: weight * 1.5 for name, weight in backbone.denoiser.state_dict().items()}
    backbone.save_full(tmp_path, weights)
    index = json.loads((tmp_path / "model_index.json").read_text())
    before = json.loads((Path(checkpoint) / "model_index.json").read_text())
    assert {name: part for name, part in index.items() if name[0] != "_"} == {
        name: part for name, part in before.items() if name[0] != "_"
    }
    assert index["_class_name"] == before["_class_name"]
    assert contents(tmp_path / "processor") == contents(Path(checkpoint) / "processor")
    for name, weight in plain(tmp_path).transformer.state_dict().items():
        assert torch.equal(weight, weights[name])


@pytest.mark.usefixtures("small_sources")
def test_a_random_checkpoint_reads_sources(tiny_family, tmp_path, pixels):
    """Of a rehearsal: its tokenizer is no published one, its text encoder finds the picture's tokens all the same."""
    write_random_checkpoint(ModelConfig(str(tiny_family("qwen-image-edit-plus"))), tmp_path, torch.float32)
    backbone = load_backbone(ModelConfig(str(tmp_path)), size=DataConfig("x", resolution=SIDES).size)
    found = backbone.encode_source(pixels[:1], ["an edit"])
    assert found["lengths"][0] > backbone.adapter.source_tokens(backbone.size)
    assert found["encoder_hidden_states"].isfinite().all()
