"""A family of a user's own, declared by an entry point, is found, trained and written like the package's."""

import pytest
import torch
from support.configs import changed
from support.own_family import TwoStagePipeline, declare, two_stage
from support.runs import train_raw

from sipo.backbones import load_backbone
from sipo.backbones.denoisers import networks_of
from sipo.backbones.random_weights import write_random_checkpoint
from sipo.config import ModelConfig, PolicyConfig
from sipo.errors import UserError
from sipo.train.policy import make_policy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return two_stage(tmp_path_factory.mktemp("two-stage"))


@pytest.fixture
def declared(tmp_path, monkeypatch):
    declare(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_it_is_unknown_where_no_package_declares_it(checkpoint):
    with pytest.raises(UserError, match="is a TwoStagePipeline; supported are StableDiffusionPipeline"):
        load_backbone(ModelConfig(str(checkpoint)))


def test_each_sample_goes_through_the_denoiser_of_its_timestep(checkpoint, declared):
    backbone = load_backbone(ModelConfig(str(checkpoint)))
    pipeline = TwoStagePipeline.from_pretrained(checkpoint)
    xt, t = torch.randn(4, 4, 8, 8), torch.tensor([100, 900, 500, 499])
    conditioning = backbone.encode_prompts(["a", "a cat", "a dog", "a large red dog"])
    predicted = backbone.predict(backbone.denoiser, xt, t, conditioning)
    for row, part in enumerate(["unet_2", "unet", "unet", "unet_2"]):
        one = slice(row, row + 1)
        expected = getattr(pipeline, part)(
            xt[one], t[one], encoder_hidden_states=conditioning["hidden"][one],
            encoder_attention_mask=conditioning["mask"][one],
        ).sample  # fmt: skip
        torch.testing.assert_close(predicted[one], expected, atol=1e-5, rtol=1e-4)


def test_padding_that_the_mask_hides_changes_nothing(checkpoint, declared):
    backbone = load_backbone(ModelConfig(str(checkpoint)))
    conditioning = backbone.encode_prompts(["a", "a large red dog"])
    assert conditioning["mask"].sum(1).tolist() == [3, 14]  # letters, spaces apart, and two marks
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([100, 900])
    other = {**conditioning, "hidden": conditioning["hidden"] + 5 * ~conditioning["mask"][:, :, None]}
    first, second = (backbone.predict(backbone.denoiser, *inputs, each) for each in (conditioning, other))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_every_weight_has_a_gradient_even_where_one_denoiser_has_no_sample(checkpoint, declared):
    backbone = load_backbone(ModelConfig(str(checkpoint)))
    policy = make_policy(backbone, PolicyConfig("full"), needs_reference=False, seed=0)
    text = backbone.encode_prompts(["a", "b"])
    backbone.predict(policy.denoiser, torch.randn(2, 4, 8, 8), torch.tensor([900, 800]), text).sum().backward()
    used, unused = ([w.grad.abs().sum() > 0 for w in network.parameters()] for network in networks_of(policy.denoiser))
    assert all(used)
    assert not any(unused)


def test_a_cache_depends_on_all_three_encoders(checkpoint, declared):
    numbers = ("", "_2", "_3")
    parts = {f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in numbers}
    assert load_backbone(ModelConfig(str(checkpoint)), encoders=False).fingerprint().keys() == parts | {"vae", "dtype"}


def test_training_from_a_cache_writes_both_denoisers(checkpoint, declared, raw_config, tmp_path):
    raw = changed(raw_config, f"model.path={checkpoint}", "policy.kind=full", f"data.cache={tmp_path / 'cache'}")
    run = train_raw(raw)
    trained, base = (TwoStagePipeline.from_pretrained(folder) for folder in (run.weights, checkpoint))
    for part in ("unet", "unet_2"):
        pairs = zip(getattr(trained, part).parameters(), getattr(base, part).parameters(), strict=True)
        assert any(not new.equal(old) for new, old in pairs)


def test_a_random_checkpoint_has_its_shapes(checkpoint, declared, tmp_path):
    write_random_checkpoint(ModelConfig(str(checkpoint)), tmp_path / "random", torch.float32)
    random, own = (load_backbone(ModelConfig(str(folder))).denoiser for folder in (tmp_path / "random", checkpoint))
    assert [p.shape for p in random.parameters()] == [p.shape for p in own.parameters()]
