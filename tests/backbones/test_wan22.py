"""What is special to Wan 2.2: timesteps per token, two transformers that switch within a batch, and configs that do not fit."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from support.pipelines import call

from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.denoisers import networks_of
from sipo.config import DataConfig, ModelConfig, PolicyConfig
from sipo.errors import UserError
from sipo.size import Size
from sipo.train.policy import make_policy

SIZES = {"wan2.2-5b": {"resolution": 32, "num_frames": 5}, "wan2.2-14b": {"resolution": [32, 48], "num_frames": 9}}


def load(tiny_family, name):
    return load_backbone(ModelConfig(str(tiny_family(name))), size=DataConfig("x", **SIZES[name]).size)


def calls_of(network) -> list[dict]:
    """What every call of a network is given from now on."""
    calls = []
    network.register_forward_pre_hook(lambda _, args, keys: calls.append(keys), with_kwargs=True)
    return calls


@torch.no_grad()
def test_one_timestep_a_sample_is_what_the_pipeline_s_timesteps_of_every_token_give(tiny_family):
    backbone, pipeline = load(tiny_family, "wan2.2-5b"), DiffusionPipeline.from_pretrained(tiny_family("wan2.2-5b"))
    theirs, ours = calls_of(pipeline.transformer), calls_of(backbone.denoiser)
    call(pipeline, ["a cat"], Size(64, 96, 9, 24.0), 1.0, 1, output_type="latent")
    (given,) = theirs
    assert given["timestep"].shape == (1, 3 * 2 * 3)  # frames x (64 / 32) x (96 / 32)
    assert given["timestep"].unique().numel() == 1
    expected = pipeline.transformer(**given)[0]
    text = {"encoder_hidden_states": given["encoder_hidden_states"]}
    found = backbone.predict(backbone.denoiser, given["hidden_states"], given["timestep"][:, 0], text)
    assert ours[0]["timestep"].shape == (1,)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_timesteps_on_both_sides_of_the_boundary_go_through_their_own_transformers(tiny_family):
    """As the pipeline: the first one from 0.875 x 1,000 on."""
    backbone = load(tiny_family, "wan2.2-14b")
    pipeline = DiffusionPipeline.from_pretrained(tiny_family("wan2.2-14b"))
    xt = torch.randn(4, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    t, text = torch.tensor([874.9, 1000.0, 875.0, 20.0]), backbone.encode_prompts(["a", "a cat", "a dog", "b"])
    found = backbone.predict(backbone.denoiser, xt, t, text)
    for row, part in enumerate(["transformer_2", "transformer", "transformer", "transformer_2"]):
        one = slice(row, row + 1)
        hidden = text["encoder_hidden_states"][one]
        own, other = (
            getattr(pipeline, each)(xt[one], t[one], hidden)[0]
            for each in (part, {"transformer": "transformer_2"}.get(part, "transformer"))
        )
        torch.testing.assert_close(found[one], own, atol=2e-6, rtol=1e-5)
        assert (own - other).abs().max() > 1e-2
    # A training selects by its timesteps on the CPU, so that it need not read them from a GPU.
    chosen = backbone.selection_of(t)
    assert {name: value.tolist() for name, value in chosen.items()} == {"denoiser": [1, 0, 0, 1]}
    assert backbone.predict(backbone.denoiser, xt, t, text | chosen).equal(found)


@pytest.mark.parametrize(("t", "used"), [(900.0, 0), (100.0, 1)])
def test_a_transformer_without_samples_computes_the_smallest_one_and_gets_gradients_of_zero(tiny_family, t, used):
    backbone = load(tiny_family, "wan2.2-14b")
    policy = make_policy(backbone, PolicyConfig("full"), needs_reference=False, seed=0)
    networks = networks_of(policy.denoiser)
    calls = [calls_of(network) for network in networks]
    xt = torch.randn(3, *backbone.adapter.latent_shape(backbone.size))
    text = backbone.encode_prompts(["a", "b", "c"])
    found = backbone.predict(policy.denoiser, xt, torch.full((3,), t), text)
    assert found.shape == xt.shape
    found.square().sum().backward()
    shapes = [each[0]["hidden_states"].shape for each in calls]
    assert shapes[used] == xt.shape
    assert shapes[1 - used] == (1, 4, 1, 2, 2)  # one frame of 16 x 16 pixels
    for number, network in enumerate(networks):
        gradients = [weight.grad for weight in network.parameters()]
        assert all(gradient is not None and gradient.any() == (number == used) for gradient in gradients)


@pytest.mark.parametrize(("name", "shift"), [("wan2.2-5b", 5.0), ("wan2.2-14b", 3.0)])
def test_the_shift_is_the_scheduler_s(tiny_family, name, shift):
    """s = f u / (1 + (f - 1) u) at the u of UniPC's grid, whose sigmas are its own, from 1 to 1/1,000."""
    scheduler = DiffusionPipeline.from_pretrained(tiny_family(name)).scheduler
    scheduler.set_timesteps(10)
    backbone = load(tiny_family, name)
    assert backbone.schedule.shift == shift
    sigmas = scheduler.sigmas[:-1].double()
    u = sigmas / (shift + (1 - shift) * sigmas)
    torch.testing.assert_close(u.diff(), u.diff()[:1].expand(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(backbone.schedule.shifted(u), sigmas, atol=1e-6, rtol=0)


def test_native_sizes(tiny_family):
    five, fourteen = (read_architecture(ModelConfig(str(tiny_family(name)))).sizes for name in SIZES)
    assert (five.native, five.height, five.width, five.frames) == (Size(704, 1280, 121, 24.0), 32, 32, 4)
    assert (fourteen.native, fourteen.height, fourteen.width, fourteen.frames) == (Size(480, 832, 81, 16.0), 16, 16, 4)


@pytest.mark.parametrize(
    ("index", "channels", "message"),
    [
        ({"boundary_ratio": None}, 4, "names a transformer_2 and no boundary_ratio; a model with two transformers has both"),
        ({"transformer_2": [None, None]}, 4, "names a boundary_ratio and no transformer_2"),
        ({"transformer": [None, None]}, 4, "names no transformer"),
        ({}, 36, r"its transformer reads 36 channels and its VAE has 4: an image-to-video model, .* WanImageToVideoPipeline"),
    ],
)  # fmt: skip
def test_checkpoints_that_do_not_fit(tiny_family, tmp_path, index, channels, message):
    folder = shutil.copytree(tiny_family("wan2.2-14b"), tmp_path / "broken")
    for file, changes in (
        (folder / "model_index.json", index),
        (folder / "transformer" / "config.json", {"in_channels": channels}),
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        read_architecture(ModelConfig(str(folder)))
