"""The noise behind a seed, against the pipelines of all flow families: what enters the network first, and where it leads."""

import pytest
import torch
from support.checkpoints import FAMILIES

from sipo import DDIM, ImportanceWeight, pair_terms
from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.denoisers import networks_of
from sipo.config import DataConfig, ModelConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


VP = ("sd", "sdxl", "cogvideox-2b", "cogvideox-5b")


@pytest.fixture(params=[name for name in FAMILIES if name not in VP])
def flow(request, tiny_family):
    """(checkpoint, size) of every family on a flow path."""
    architecture = read_architecture(ModelConfig(str(tiny_family(request.param))))
    size = DataConfig("x", **FAMILIES[request.param][1]).size
    assert architecture.adapter.schedule(architecture.size(size)).prediction == "flow"
    return architecture, size


class Inputs(list):
    """The latents that a network saw, call by call."""

    def __init__(self, network):
        super().__init__()
        network.register_forward_pre_hook(
            lambda _, args, kwargs: self.append(self.first(args, kwargs)), with_kwargs=True
        )

    @staticmethod
    def first(args, kwargs):
        given = args[0] if args else kwargs["hidden_states"]
        return torch.stack(given) if isinstance(given, list) else given.clone()


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_what_the_pipeline_begins_with(flow, dtype):
    backbone = load_backbone(flow[0], dtype=DTYPES[dtype], size=flow[1])
    seen = Inputs(networks_of(backbone.denoiser)[0])
    backbone.sampler(1, 1.0)(["a cat", "a dog"], [5, 2**40 + 3])
    noise = backbone.initial_noise([5, 2**40 + 3], backbone.noise_dtype)
    assert (noise.shape[1:], noise.dtype) == (backbone.adapter.latent_shape(backbone.size), torch.float32)
    with torch.no_grad():
        backbone.predict(
            backbone.denoiser, noise, torch.tensor([1000.0, 1000.0]), backbone.encode_prompts(["a cat", "a dog"])
        )
    channels = seen[-1].shape[1]  # HunyuanVideo-1.5's pipeline adds those of a first frame, zeros here
    assert torch.equal(seen[0][:, :channels], seen[-1])
    assert not seen[0][:, channels:].any()


@torch.no_grad()
def test_a_sample_of_one_step_lies_on_the_straight_line_from_its_noise(flow, monkeypatch):
    """x_0 = x_T - v(x_T): with this noise the base's error at s = 1 is none, with any other noise it is some."""
    backbone, decoded = load_backbone(flow[0], size=flow[1]), []
    vae, guidance = backbone.pipeline.vae, backbone.model.guidance if backbone.is_distilled else 1.0
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda z, *rest, **keys: decoded.append(z.clone()) or decode(z, *rest, **keys))
    seeds = [11, 12]
    backbone.sampler(1, guidance)(["a cat"] * 2, seeds)
    shape = (2, *backbone.adapter.latent_shape(backbone.size))
    for filled in (torch.zeros(shape), torch.ones(shape)):
        backbone.adapter.decode(backbone.pipeline, filled)
    *z, zero, one = (torch.cat(decoded[n : n + len(decoded) // 3]) for n in range(0, len(decoded), len(decoded) // 3))
    x0 = (z[0] - zero) / (one - zero)  # decoding is affine
    if hasattr(backbone.pipeline, "_patchify_latents"):
        x0 = backbone.pipeline._patchify_latents(x0)
    x0 = x0.reshape(shape)
    text = backbone.encode_prompts(["a cat"] * 2)

    def error(eps):
        terms = pair_terms(
            lambda xt, t: backbone.predict(backbone.denoiser, xt, t, text), None, backbone.schedule, DDIM(), 50,
            ImportanceWeight(), x0[:1], x0[1:], eps, torch.tensor([1000.0]),
        )  # fmt: skip
        return torch.cat([terms.chosen.policy_error, terms.rejected.policy_error])

    own = backbone.initial_noise(seeds, torch.float32)
    exact = backbone.pipeline.scheduler.sigmas[0] == 1  # Wan's sampler begins at 0.9997
    assert error(own).max() < (1e-9 if exact else 0.01)
    assert error(own.flip(0)).min() > 0.1
