"""The policy equals its reference before training, and the reference stays as it is."""

import pytest
import torch

from sipo.backbones import load_backbone
from sipo.config import ModelConfig, PolicyConfig
from sipo.errors import UserError
from sipo.train.policy import make_policy


@pytest.fixture
def backbone(tiny_sd):
    return load_backbone(ModelConfig(str(tiny_sd)))


def predict(backbone, network):
    generator = torch.Generator().manual_seed(0)
    xt = torch.randn(2, 4, 8, 8, generator=generator)
    return backbone.predict(network, xt, torch.tensor([3, 700]), backbone.encode_prompts(["a", "b"]))


@pytest.mark.parametrize("config", [PolicyConfig("lora", rank=4), PolicyConfig("full")])
def test_reference_is_the_untrained_network(backbone, config):
    before = predict(backbone, backbone.denoiser).detach()
    policy = make_policy(backbone, config, needs_reference=True, seed=0)
    assert predict(backbone, policy.denoiser).equal(before)
    with torch.no_grad():
        for weight in policy.trainable.values():
            weight.add_(0.05)
    with policy.network("reference") as network, torch.no_grad():
        assert predict(backbone, network).equal(before)
    assert not predict(backbone, policy.denoiser).equal(before)


def test_adapters_are_on_again_before_the_backward_pass(backbone):
    policy = make_policy(backbone, PolicyConfig("lora", rank=4), needs_reference=True, seed=0)
    with pytest.raises(RuntimeError), policy.network("reference"):
        raise RuntimeError("even when the reference fails")
    predict(backbone, policy.denoiser).square().mean().backward()
    # B starts at zero, so the gradient of A is zero and that of B is not.
    assert all(w.grad.abs().sum() > 0 for name, w in policy.trainable.items() if "lora_B" in name)


def test_only_what_is_trained_takes_gradients(backbone):
    policy = make_policy(backbone, PolicyConfig("lora", rank=4), needs_reference=True, seed=0)
    assert policy.frozen_copy is None
    assert all("lora_" in name for name in policy.trainable)
    assert not any(
        w.requires_grad for part in (backbone.pipeline.vae, backbone.pipeline.text_encoder) for w in part.parameters()
    )


def test_no_copy_where_no_reference_is_needed(backbone):
    assert make_policy(backbone, PolicyConfig("full"), needs_reference=False, seed=0).frozen_copy is None


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_trained_weights_are_float32_masters(tiny_sd, kind):
    backbone = load_backbone(ModelConfig(str(tiny_sd)), dtype=torch.bfloat16)
    policy = make_policy(backbone, PolicyConfig(kind, rank=4), needs_reference=False, seed=0)
    assert {weight.dtype for weight in policy.trainable.values()} == {torch.float32}


def test_same_seed_same_adapters(tiny_sd):
    states = [
        make_policy(load_backbone(ModelConfig(str(tiny_sd))), PolicyConfig(rank=4), True, seed).state()
        for seed in (1, 1, 2)
    ]
    same, other = ([a[name].equal(b[name]) for name in a if "lora_A" in name] for a, b in (states[:2], states[1:]))
    assert all(same)
    assert not any(other)


def test_unknown_target_modules(backbone):
    with pytest.raises(UserError, match="target_modules"):
        make_policy(backbone, PolicyConfig(target_modules=["no_such_layer"]), True, 0)


def test_weights_of_another_policy(backbone):
    policy = make_policy(backbone, PolicyConfig(rank=2), True, 0)
    with pytest.raises(UserError, match="another policy"):
        policy.load_state({"strange": torch.zeros(1)})
